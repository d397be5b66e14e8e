//! The rules of the loop, one test each.

mod desk;

use desk::*;
use loopd_agent_loop::{AgentLoop, Answer, Call, Command, Input, Resume, messages};
use loopd_domain::Timestamp;
use loopd_domain::event::{AnswerStop, Outcome, Permission, RunsIn, Verdict};
use loopd_domain::session::{LimitName, StopDetails, StopReason, TurnLimits};
use loopd_domain::usage::MicroUsd;

/// A turn whose first question is asked.
fn asking() -> AgentLoop {
    let (machine, commands) = AgentLoop::resume(config(), new_turn(), START);
    assert_eq!(commands, [call_model(1, &[])]);
    machine
}

/// A turn whose first answer asked for these calls, and what followed.
fn acting(list: Vec<Call>) -> (AgentLoop, Vec<Command>) {
    let mut machine = asking();
    let commands = machine.step(START, calls(list));
    (machine, commands)
}

fn resume(resume: Resume) -> Vec<Command> {
    AgentLoop::resume(config(), resume, START).1
}

fn step(machine: &mut AgentLoop, input: Input) -> Vec<Command> {
    machine.step(START, input)
}

// ---- resuming ----

#[test]
fn a_new_turn_asks_the_model_with_everything_queued() {
    assert_eq!(resume(Resume { queued: vec![id(7), id(8)], ..new_turn() }), [call_model(1, &[7, 8])]);
}

#[test]
fn a_turn_with_settled_calls_asks_for_the_next_step() {
    let turn =
        Resume { steps: 3, calls: vec![settled(room(1)), settled(client(2))], queued: vec![id(9)], ..new_turn() };
    assert_eq!(resume(turn), [call_model(4, &[9])]);
}

#[test]
fn a_turn_with_open_calls_acts_on_them_as_if_just_answered() {
    let turn = Resume { steps: 1, calls: vec![settled(room(1)), room(2), client(3)], ..new_turn() };
    assert_eq!(resume(turn), [run(2)]);
    let turn = Resume { steps: 1, calls: vec![settled(room(1)), client(3)], ..new_turn() };
    assert_eq!(resume(turn), [requires(&[3])]);
    let denied = Call { verdict: Some(Verdict::Deny), ..asks(1) };
    let commands = resume(Resume { steps: 1, calls: vec![denied], ..new_turn() });
    settle_text(&commands[0], 1, Outcome::NotRun);
    assert_eq!(commands[1..], [call_model(2, &[])]);
}

#[test]
fn a_turn_whose_end_was_not_written_ends_as_its_answer_demands() {
    let with = |answered: Answer| resume(Resume { steps: 1, answered: Some(answered), ..new_turn() });
    assert_eq!(with(answer(AnswerStop::EndTurn, vec![])), [end(StopReason::EndTurn)]);
    assert_eq!(with(answer(AnswerStop::MaxTokens, vec![])), [limit(LimitName::MaxTokens)]);
    assert_eq!(with(answer(AnswerStop::Pause, vec![])), [call_model(2, &[])]);
    let bad = Answer { output_error: Some("no".to_owned()), ..answer(AnswerStop::EndTurn, vec![]) };
    assert!(matches!(&with(bad)[..], [Command::CallModel { step: 2, repair: Some(_), .. }]));
}

// ---- answers without calls ----

#[test]
fn a_final_answer_ends_the_turn() {
    assert_eq!(step(&mut asking(), says(AnswerStop::EndTurn)), [end(StopReason::EndTurn)]);
    assert_eq!(step(&mut asking(), says(AnswerStop::ToolUse)), [end(StopReason::EndTurn)]);
}

#[test]
fn a_final_answer_with_inputs_queued_goes_on_without_an_idle_between() {
    let mut machine = asking();
    assert_eq!(step(&mut machine, queue(7)), []);
    assert_eq!(step(&mut machine, queue(7)), [], "told twice is queued once");
    assert_eq!(step(&mut machine, queue(8)), []);
    assert_eq!(step(&mut machine, says(AnswerStop::EndTurn)), [call_model(2, &[7, 8])]);
    assert_eq!(step(&mut machine, says(AnswerStop::EndTurn)), [end(StopReason::EndTurn)]);
}

#[test]
fn a_pause_asks_again_and_takes_nothing_up() {
    let mut machine = asking();
    step(&mut machine, queue(7));
    assert_eq!(step(&mut machine, says(AnswerStop::Pause)), [call_model(2, &[])]);
    assert_eq!(step(&mut machine, says(AnswerStop::EndTurn)), [call_model(3, &[7])]);
}

#[test]
fn a_refusal_ends_the_turn_with_its_details() {
    let stop_details = Some(StopDetails::Refusal { category: Some("cyber".to_owned()), explanation: None });
    let refused = Answer { stop_details: stop_details.clone(), ..answer(AnswerStop::Refusal, vec![]) };
    let ended = Command::EndTurn { reason: StopReason::Refusal, details: stop_details };
    let commands = step(&mut asking(), Input::Answered { answer: refused.clone() });
    assert_eq!(commands, std::slice::from_ref(&ended));
    let commands = step(&mut asking(), Input::Answered { answer: Answer { calls: vec![room(1)], ..refused } });
    settle_text(&commands[0], 1, Outcome::NotRun);
    assert_eq!(commands[1..], [ended], "no call of a refused answer runs");
}

#[test]
fn a_final_answer_cut_off_ends_the_turn_as_a_limit() {
    assert_eq!(step(&mut asking(), says(AnswerStop::MaxTokens)), [limit(LimitName::MaxTokens)]);
}

#[test]
fn an_empty_answer_ends_the_turn() {
    assert_eq!(step(&mut asking(), empty()), [end(StopReason::EndTurn)]);
}

#[test]
fn an_empty_answer_to_tool_results_is_asked_about_once() {
    let (mut machine, _) = acting(vec![room(1)]);
    step(&mut machine, done(1));
    let commands = step(&mut machine, empty());
    let [Command::CallModel { step: 3, take, repair: Some(text) }] = &commands[..] else { panic!("{commands:?}") };
    assert!(take.is_empty() && text.contains("empty"), "{text}");
    assert_eq!(step(&mut machine, empty()), [end(StopReason::EndTurn)]);
}

#[test]
fn an_output_that_is_not_of_the_schema_is_asked_for_again_then_given_up() {
    let mut machine = asking();
    step(&mut machine, queue(7));
    let commands = step(&mut machine, not_of_schema());
    let [Command::CallModel { step: 2, take, repair: Some(text) }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(take, &[id(7)]);
    assert!(text.contains("`age` is missing"), "{text}");
    assert!(matches!(&step(&mut machine, not_of_schema())[..], [Command::CallModel { step: 3, repair: Some(_), .. }]));
    assert_eq!(step(&mut machine, not_of_schema()), [limit(LimitName::OutputSchema)]);
}

#[test]
fn rejections_before_a_restart_count() {
    let (mut machine, _) = AgentLoop::resume(config(), Resume { output_rejections: 2, ..new_turn() }, START);
    assert_eq!(step(&mut machine, not_of_schema()), [limit(LimitName::OutputSchema)]);
}

#[test]
fn a_model_that_cannot_be_reached_ends_the_turn() {
    assert_eq!(step(&mut asking(), Input::ModelFailed), [end(StopReason::RetriesExhausted)]);
}

// ---- calls ----

#[test]
fn calls_run_in_order_and_a_bounded_number_at_a_time() {
    let (mut machine, commands) = acting(vec![room(1), room(2), room(3), room(4)]);
    assert_eq!(commands, [run(1), run(2)]);
    assert_eq!(step(&mut machine, done(2)), [run(3)]);
    assert_eq!(step(&mut machine, done(3)), [run(4)]);
    assert_eq!(step(&mut machine, done(4)), []);
    assert_eq!(step(&mut machine, done(1)), [call_model(2, &[])]);
}

#[test]
fn inputs_steer_between_steps() {
    let (mut machine, _) = acting(vec![room(1)]);
    assert_eq!(step(&mut machine, queue(7)), []);
    assert_eq!(step(&mut machine, done(1)), [call_model(2, &[7])]);
}

#[test]
fn too_many_calls_are_told_so_and_the_first_ones_run() {
    let (_, commands) = acting((1..=6).map(room).collect());
    assert_eq!(commands[..2], [run(1), run(2)]);
    for (command, n) in commands[2..].iter().zip(5..) {
        assert!(settle_text(command, n, Outcome::NotRun).contains("at most 4 calls"));
    }
    assert_eq!(commands.len(), 4);
}

#[test]
fn malformed_arguments_are_told_and_the_model_may_mend_them() {
    let bad = Call { malformed: Some("not JSON: EOF at column 9".to_owned()), ..room(1) };
    let (_, commands) = acting(vec![bad]);
    let text = settle_text(&commands[0], 1, Outcome::NotRun);
    assert!(text.contains("not run") && text.contains("EOF at column 9"), "{text}");
    assert_eq!(commands[1..], [call_model(2, &[])]);
}

#[test]
fn arguments_cut_off_by_max_tokens_are_told_to_be_smaller_and_whole_calls_run() {
    let bad = Call { malformed: Some("cut off".to_owned()), ..room(2) };
    let input = Input::Answered { answer: answer(AnswerStop::MaxTokens, vec![room(1), bad]) };
    let commands = step(&mut asking(), input);
    assert_eq!(commands[0], run(1));
    let text = settle_text(&commands[1], 2, Outcome::NotRun);
    assert!(text.contains("max_tokens") && text.contains("smaller arguments"), "{text}");
}

#[test]
fn an_unknown_tool_is_told_the_known_ones() {
    let (_, commands) = acting(vec![Call { name: "bahs".to_owned(), runs_in: RunsIn::Nowhere, ..room(1) }]);
    let text = settle_text(&commands[0], 1, Outcome::NotRun);
    assert!(text.contains("`bahs`") && text.contains("Did you mean `bash`?") && text.contains("`read`"), "{text}");
}

#[test]
fn what_policy_denies_never_runs() {
    let (_, commands) = acting(vec![Call { permission: Permission::Deny, ..room(1) }]);
    assert!(settle_text(&commands[0], 1, Outcome::NotRun).contains("policy"));
}

// ---- the client's part ----

#[test]
fn the_turn_rests_when_only_the_client_can_go_on() {
    let (mut machine, commands) = acting(vec![client(1), asks(2)]);
    assert_eq!(commands, [requires(&[1, 2])]);
    for input in [done(1), verdict(2, Verdict::Allow), queue(7), Input::Interrupt, Input::TimeUp, calls(vec![room(3)])]
    {
        assert_eq!(step(&mut machine, input), [], "after the end of a turn nothing more");
    }
}

#[test]
fn the_turn_does_not_rest_while_something_runs() {
    let (mut machine, commands) = acting(vec![room(1), client(2), asks(3)]);
    assert_eq!(commands, [run(1)]);
    assert_eq!(step(&mut machine, done(1)), [requires(&[2, 3])]);
}

#[test]
fn a_client_that_answers_while_something_runs_keeps_the_turn_going() {
    let (mut machine, _) = acting(vec![room(1), client(2)]);
    assert_eq!(step(&mut machine, done(2)), []);
    assert_eq!(step(&mut machine, done(1)), [call_model(2, &[])]);
}

#[test]
fn an_allowed_call_runs_when_there_is_a_free_place() {
    let (mut machine, commands) = acting(vec![asks(1), room(2), room(3), room(4)]);
    assert_eq!(commands, [run(2), run(3)]);
    assert_eq!(step(&mut machine, verdict(1, Verdict::Allow)), []);
    assert_eq!(step(&mut machine, done(3)), [run(1)], "in call order");
    assert_eq!(step(&mut machine, done(2)), [run(4)]);
}

#[test]
fn an_allowed_custom_tool_still_waits_for_the_client() {
    let allowed = Call { permission: Permission::Ask, verdict: Some(Verdict::Allow), ..client(1) };
    assert_eq!(acting(vec![allowed]).1, [requires(&[1])]);
}

#[test]
fn a_denied_call_is_told_the_clients_words() {
    let (mut machine, _) = acting(vec![room(1), asks(2)]);
    let deny_message = Some("use the staging host".to_owned());
    let commands = step(&mut machine, Input::Verdict { id: id(2), verdict: Verdict::Deny, deny_message });
    assert!(settle_text(&commands[0], 2, Outcome::NotRun).contains("use the staging host"));
    assert_eq!(commands.len(), 1);
    assert_eq!(step(&mut machine, verdict(2, Verdict::Allow)), [], "the first word counts");
}

// ---- limits ----

#[test]
fn every_limit_is_checked_before_the_model_is_asked() {
    let limits = TurnLimits { steps: 3, output_tokens: 100, seconds: 60, cost_micro_usd: Some(500) };
    let turn = |change: fn(&mut Resume)| {
        let mut turn = Resume { limits: limits.clone(), ..new_turn() };
        change(&mut turn);
        turn
    };
    assert_eq!(resume(turn(|t| t.steps = 3)), [limit(LimitName::Steps)]);
    assert_eq!(resume(turn(|t| t.output_tokens = 100)), [limit(LimitName::OutputTokens)]);
    assert_eq!(resume(turn(|t| t.cost = Some(MicroUsd(500)))), [limit(LimitName::CostUsd)]);
    assert_eq!(resume(turn(|t| t.cost = None)), [limit(LimitName::CostUsd)], "unknown counts as reached");
    assert_eq!(resume(turn(|_| ())), [call_model(1, &[])]);
    let late = START.plus_ms(60_000);
    assert_eq!(AgentLoop::resume(config(), turn(|_| ()), late).1, [limit(LimitName::Seconds)]);
    let in_time = Timestamp(late.micros() - 1);
    assert_eq!(AgentLoop::resume(config(), turn(|_| ()), in_time).1, [call_model(1, &[])]);
}

#[test]
fn an_unknown_cost_is_no_limit_when_none_was_set() {
    assert_eq!(resume(Resume { cost: None, ..new_turn() }), [call_model(1, &[])]);
}

#[test]
fn what_answers_spend_adds_up() {
    let limits = TurnLimits { output_tokens: 20, ..TurnLimits::default() };
    let (mut machine, _) = AgentLoop::resume(config(), Resume { limits, ..new_turn() }, START);
    step(&mut machine, calls(vec![room(1)]));
    assert_eq!(step(&mut machine, done(1)), [call_model(2, &[])]);
    step(&mut machine, calls(vec![room(2)]));
    assert_eq!(step(&mut machine, done(2)), [limit(LimitName::OutputTokens)]);
}

#[test]
fn calls_of_the_last_step_are_settled_before_a_limit_ends_the_turn() {
    let limits = TurnLimits { steps: 1, ..TurnLimits::default() };
    let (mut machine, _) = AgentLoop::resume(config(), Resume { limits, ..new_turn() }, START);
    assert_eq!(step(&mut machine, calls(vec![room(1)])), [run(1)]);
    assert_eq!(step(&mut machine, done(1)), [limit(LimitName::Steps)]);
}

// ---- interrupt and time ----

#[test]
fn an_interrupt_abandons_the_question() {
    let mut machine = asking();
    step(&mut machine, queue(7));
    assert_eq!(step(&mut machine, Input::Interrupt), [Command::CancelModel, end(StopReason::EndTurn)]);
    assert_eq!(step(&mut machine, says(AnswerStop::EndTurn)), [], "an answer that crossed it is void");
}

#[test]
fn an_interrupt_stops_what_runs_settles_the_rest_and_waits() {
    let (mut machine, _) = acting(vec![room(1), room(2), room(3), client(4)]);
    step(&mut machine, done(1));
    let commands = step(&mut machine, Input::Interrupt);
    assert_eq!(commands[..2], [cancel(2), cancel(3)]);
    assert_eq!(settle_text(&commands[2], 4, Outcome::Interrupted), messages::INTERRUPTED);
    assert_eq!(commands.len(), 3);
    assert_eq!(step(&mut machine, Input::Interrupt), [], "once is enough");
    assert_eq!(step(&mut machine, done(4)), [], "it has its result");
    assert_eq!(step(&mut machine, done(3)), []);
    assert_eq!(step(&mut machine, done(2)), [end(StopReason::EndTurn)]);
}

#[test]
fn an_interrupt_settles_calls_that_have_not_started() {
    let (mut machine, _) = acting(vec![room(1), room(2), room(3), asks(4)]);
    let commands = step(&mut machine, Input::Interrupt);
    assert_eq!(commands[..2], [cancel(1), cancel(2)]);
    settle_text(&commands[2], 3, Outcome::Interrupted);
    settle_text(&commands[3], 4, Outcome::Interrupted);
    assert_eq!(step(&mut machine, verdict(4, Verdict::Allow)), []);
}

#[test]
fn time_up_ends_the_turn_as_a_limit() {
    assert_eq!(step(&mut asking(), Input::TimeUp), [Command::CancelModel, limit(LimitName::Seconds)]);
    let (mut machine, _) = acting(vec![room(1), client(2)]);
    let commands = step(&mut machine, Input::TimeUp);
    assert_eq!(commands[0], cancel(1));
    assert_eq!(settle_text(&commands[1], 2, Outcome::Interrupted), messages::TIME_UP);
    assert_eq!(step(&mut machine, Input::Interrupt), [], "the first reason stays");
    assert_eq!(step(&mut machine, done(1)), [limit(LimitName::Seconds)]);
}

// ---- what does not fit ----

#[test]
fn what_does_not_fit_is_ignored() {
    let (mut machine, _) = acting(vec![room(1), room(2)]);
    for input in
        [done(99), verdict(99, Verdict::Deny), verdict(1, Verdict::Deny), says(AnswerStop::EndTurn), Input::ModelFailed]
    {
        assert_eq!(step(&mut machine, input), []);
    }
    assert_eq!(step(&mut machine, done(1)), []);
    assert_eq!(step(&mut machine, done(1)), [], "twice");
    assert_eq!(step(&mut machine, done(2)), [call_model(2, &[])]);
    assert_eq!(step(&mut machine, done(2)), [], "of a step that is over");
}

#[test]
fn a_call_can_be_looked_up_by_id() {
    let (machine, _) = acting(vec![room(1)]);
    assert_eq!(machine.call(&id(1)).map(|c| c.name.as_str()), Some("bash"));
    assert!(machine.call(&id(2)).is_none());
}

#[test]
fn a_parallel_bound_of_nothing_still_runs_one_at_a_time() {
    let mut bound = config();
    bound.parallel_max = 0;
    let (mut machine, _) = AgentLoop::resume(bound, new_turn(), START);
    assert_eq!(step(&mut machine, calls(vec![room(1), room(2)])), [run(1)]);
    assert_eq!(step(&mut machine, done(1)), [run(2)]);
}
