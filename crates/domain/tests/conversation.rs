//! The conversation that the model sees, from journals written by hand.

mod journal;

use journal::*;
use loopd_domain::content::ContentBlock;
use loopd_domain::conversation::{Block, Conversation, Message, Role};
use loopd_domain::event::*;
use loopd_domain::session::StopReason;
use serde_json::json;

/// One line a message: who, then each block.
fn transcript(j: &Journal) -> Vec<String> {
    let mut conversation = Conversation::default();
    j.events.iter().for_each(|e| conversation.apply(e));
    conversation.messages().iter().map(|m| line(m)).collect()
}

fn line(message: &Message) -> String {
    let who = match message.role {
        Role::User => "user",
        Role::Assistant => "model",
    };
    let blocks: Vec<String> = message.blocks.iter().map(block).collect();
    format!("{who}: {}", blocks.join(" | "))
}

fn block(block: &Block) -> String {
    let text = |content: &[ContentBlock]| match content {
        [ContentBlock::Text { text }] => text.clone(),
        other => format!("{} blocks", other.len()),
    };
    match block {
        Block::Content(content) => text(std::slice::from_ref(content)),
        Block::System(system) => format!("system({system})"),
        Block::Thinking(native) => format!("thinking({})", native.block),
        Block::ToolUse { provider_call_id, name, .. } => format!("{name}#{provider_call_id}"),
        Block::ToolResult { provider_call_id, content, is_error } => {
            format!("{}#{provider_call_id}({})", if *is_error { "error" } else { "result" }, text(content))
        }
    }
}

#[test]
fn results_stand_in_call_order_and_before_the_inputs_taken_up_with_them() {
    let (mut j, request) = Journal::asking();
    j.put(said("two at once"));
    let a = j.put(tool("a", Permission::Allow));
    let b = j.put(custom("b"));
    j.put(answered(&request));
    j.put(custom_result(&b, "second"));
    j.put(result(&a, "first"));
    j.put(message("by the way"));
    j.put(EventBody::SystemMessage { content: texts("be brief") });
    let expected = [
        "user: hello",
        "model: two at once | bash#a | lookup#b",
        "user: result#a(first) | result#b(second) | by the way | system(be brief)",
    ];
    assert_eq!(transcript(&j), expected);
    j.put(start(2));
    assert_eq!(transcript(&j), expected, "a request changes nothing of what it was sent");
}

#[test]
fn a_call_keeps_what_the_provider_must_get_back() {
    let (mut j, request) = Journal::asking();
    let mut call = intent("a", RunsIn::Room);
    call.malformed = Some("not JSON".to_owned());
    call.raw_arguments = Some("{\"comm".to_owned());
    call.native = Some(NativeBlock { dialect: "openai".to_owned(), block: json!({"x": 1}) });
    let thought = NativeBlock { dialect: "anthropic".to_owned(), block: json!({"signature": "s"}) };
    j.put(EventBody::AgentThinking { native: thought.clone() });
    j.put(EventBody::AgentToolUse {
        name: "bash".to_owned(),
        input: json!({}),
        evaluated_permission: Permission::Allow,
        call,
    });
    j.put(answered(&request));
    let mut conversation = Conversation::default();
    j.events.iter().for_each(|e| conversation.apply(e));
    let messages = conversation.messages();
    let expected = Block::ToolUse {
        provider_call_id: "a".to_owned(),
        name: "bash".to_owned(),
        input: json!({}),
        raw_arguments: Some("{\"comm".to_owned()),
        native: Some(NativeBlock { dialect: "openai".to_owned(), block: json!({"x": 1}) }),
    };
    assert_eq!(messages[1].blocks, [Block::Thinking(thought), expected]);
}

#[test]
fn an_error_result_says_so() {
    let (mut j, request) = Journal::asking();
    let call = j.put(tool("a", Permission::Allow));
    j.put(answered(&request));
    j.put(EventBody::AgentToolResult {
        tool_use_id: call,
        content: texts("denied"),
        is_error: true,
        outcome: Outcome::NotRun,
        duration_ms: 0,
    });
    assert_eq!(transcript(&j)[2], "user: error#a(denied)");
}

#[test]
fn a_new_shell_is_told_of_before_what_the_user_says_next() {
    let (mut j, request) = Journal::asking();
    j.put(said("done"));
    j.put(answered(&request));
    j.put(EventBody::RoomRestarted { message: "your shell is a new one".to_owned() });
    j.put(message("go on"));
    assert_eq!(transcript(&j)[2], "user: system(your shell is a new one) | go on");
}

#[test]
fn a_rejected_output_is_what_the_user_says_next() {
    let (mut j, request) = Journal::asking();
    j.put(said("{"));
    j.put(answered(&request));
    j.put(EventBody::OutputRejected { message: "not JSON".to_owned() });
    assert_eq!(transcript(&j), ["user: hello", "model: {", "user: not JSON"]);
}

#[test]
fn an_empty_answer_leaves_no_message() {
    let (mut j, request) = Journal::asking();
    j.put(answered(&request));
    j.put(EventBody::OutputRejected { message: "say something".to_owned() });
    assert_eq!(transcript(&j), ["user: hello", "user: say something"]);
}

#[test]
fn a_queued_input_is_not_said_until_it_is_taken_up() {
    let (mut j, request) = Journal::asking();
    j.put(queued(&id(900), message("later")));
    j.put(said("hi"));
    j.put(answered(&request));
    assert_eq!(transcript(&j), ["user: hello", "model: hi"]);
    j.put_as(id(900), message("later")).expect("between steps");
    assert_eq!(transcript(&j), ["user: hello", "model: hi", "user: later"]);
}

#[test]
fn an_answer_cut_off_is_not_sent_back_to_be_continued() {
    let (mut j, request) = Journal::asking();
    j.put(EventBody::AgentMessage { content: texts("I was about to"), partial: true });
    j.put(end(&request, RequestOutcome::Interrupted));
    assert_eq!(transcript(&j), ["user: hello"]);
    let again = j.put(start(1));
    assert_eq!(transcript(&j), ["user: hello"]);
    j.put(said("whole"));
    j.put(answered(&again));
    assert_eq!(transcript(&j), ["user: hello", "model: whole"]);
}

#[test]
fn an_answer_cut_off_stands_before_what_the_user_said_to_it() {
    let (mut j, request) = Journal::asking();
    let native = NativeBlock { dialect: "anthropic".to_owned(), block: json!("half") };
    j.put(EventBody::AgentThinking { native });
    j.put(EventBody::AgentMessage { content: texts("I was about to"), partial: true });
    j.put(end(&request, RequestOutcome::Interrupted));
    j.put(idle(StopReason::EndTurn));
    j.put(message("do not"));
    let expected = ["user: hello", "model: I was about to", "user: do not"];
    assert_eq!(transcript(&j), expected);
    j.put(running(2));
    j.put(start(1));
    assert_eq!(transcript(&j), expected);
}
