//! What clients were told, against what is kept: acknowledged inputs are there once, and streams and lists show the journal.

use crate::client::Session;
use crate::journal::Entry;
use crate::plan::final_text;
use serde_json::Value;

/// `list` is what the interface lists, oldest first; entries of the journal alone are not in it.
pub fn check(session: &Session, entries: &[Entry], list: &[Value]) -> Vec<String> {
    let mut faults = inputs(session, entries);
    let public: Vec<&Entry> = entries.iter().filter(|e| is_public(e)).collect();
    let listed: Vec<&str> = list.iter().filter_map(|event| event["id"].as_str()).collect();
    let kept: Vec<&str> = public.iter().map(|e| e.id.as_str()).collect();
    if listed != kept {
        faults.push(format!(
            "the list has {} events and the journal {}, or in another order",
            listed.len(),
            kept.len()
        ));
    }
    let shown: Vec<(u64, &str)> = session.seen.iter().map(|s| (s.seq, s.id.as_str())).collect();
    let kept: Vec<(u64, &str)> = public.iter().map(|e| (e.seq, e.id.as_str())).collect();
    if shown != kept {
        let first = shown.iter().zip(&kept).position(|(a, b)| a != b).unwrap_or(shown.len().min(kept.len()));
        faults.push(format!(
            "the stream showed {:?} where the journal has {:?} ({} shown, {} kept)",
            shown.get(first),
            kept.get(first),
            shown.len(),
            kept.len()
        ));
    }
    faults
}

fn inputs(session: &Session, entries: &[Entry]) -> Vec<String> {
    let mut faults = Vec::new();
    let count =
        |kind: &str, holds: &dyn Fn(&Entry) -> bool| entries.iter().filter(|e| e.kind == kind && holds(e)).count();
    for text in &session.messages {
        let found = count("user.message", &|e| e.body["content"][0]["text"] == text.as_str());
        if found != 1 {
            faults.push(format!("message `{text}` was acknowledged and stands {found} times in the journal"));
        }
    }
    for call in &session.answers {
        let found = count("user.custom_tool_result", &|e| e.text("custom_tool_use_id") == call);
        if found != 1 {
            faults.push(format!("the answer to {call} was acknowledged and stands {found} times in the journal"));
        }
    }
    let found = count("user.interrupt", &|_| true);
    if found != session.interrupts {
        faults.push(format!("{} interrupts were acknowledged and {found} stand in the journal", session.interrupts));
    }
    for (call, doubt) in &session.doubts {
        let found = count("user.tool_confirmation", &|e| e.text("tool_use_id") == call);
        if found != doubt.decided {
            let decided = doubt.decided;
            faults.push(format!("{decided} decisions on {call} were acknowledged and {found} stand in the journal"));
        }
    }
    for turn in 0..session.turns {
        let text = final_text(turn);
        let found = count("agent.message", &|e| e.body["content"][0]["text"] == text.as_str());
        if found != 1 {
            faults.push(format!("`{text}` was said {found} times"));
        }
    }
    faults
}

/// Entries that are for the journal alone are listed nowhere.
fn is_public(entry: &Entry) -> bool {
    entry.kind != "loopd.input_queued"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::entries;
    use crate::client::Seen;
    use crate::plan::Plan;
    use serde_json::json;

    fn session(seen: &[(u64, &str)]) -> Session {
        let mut session = Session::new("t".to_owned(), Plan { turns: Vec::new(), on_unknown_outcome: "ask" }, false);
        session.messages.push("hello".to_owned());
        let at = tokio::time::Instant::now();
        session.seen = seen.iter().map(|(seq, id)| Seen { seq: *seq, id: (*id).to_owned(), at }).collect();
        session
    }

    #[test]
    fn what_was_told_must_be_what_is_kept() {
        let message = json!({"type": "user.message", "content": [{"type": "text", "text": "hello"}]});
        let kept = entries(&[message.clone(), json!({"type": "loopd.input_queued"}), json!({"type": "session.error"})]);
        let list = [json!({"id": "e1"}), json!({"id": "e3"})];
        let told = session(&[(1, "e1"), (3, "e3")]);
        assert_eq!(check(&told, &kept, &list), Vec::<String>::new());

        let mut decided = told.clone();
        decided.doubts.insert("e9".to_owned(), crate::client::Doubt { said: 1, decided: 1 });
        assert!(check(&decided, &kept, &list)[0].contains("1 decisions on e9 were acknowledged and 0 stand"));

        let mut interrupted = told.clone();
        interrupted.interrupts = 1;
        assert!(check(&interrupted, &kept, &list)[0].contains("1 interrupts were acknowledged and 0 stand"));

        assert!(check(&told, &kept[1..], &list)[0].contains("stands 0 times"));
        let twice = entries(&[message.clone(), json!({"type": "loopd.input_queued"}), message]);
        assert!(check(&told, &twice, &list)[0].contains("stands 2 times"));
        assert!(check(&told, &kept, &list[..1])[0].contains("the list has 1"));
        assert!(check(&session(&[(1, "e1")]), &kept, &list)[0].contains("the stream showed None"));
        assert!(check(&session(&[(1, "e1"), (2, "x"), (3, "e3")]), &kept, &list)[0].contains("the stream showed"));
    }
}
