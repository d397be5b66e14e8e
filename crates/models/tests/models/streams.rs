//! A stream that is cut or chopped anywhere is the whole answer or a failure, never a short answer.

use crate::setup::{Setup, fixture, request};
use loopd_models::testing::{Delivery, End, Reply};
use loopd_models::{Answer, ErrorClass};

const STREAMS: [(&str, &str); 3] = [
    ("anthropic/claude-opus-5-5", "anthropic_thinking_tools.sse"),
    ("openai/gpt-5", "openai_tools.sse"),
    ("openai/gpt-5", "openai_deepseek.sse"),
];

/// The same answer but for what may follow it: the usage.
fn same(a: &Answer, b: &Answer) -> bool {
    (&a.blocks, a.stop, &a.stop_details, &a.model) == (&b.blocks, b.stop, &b.stop_details, &b.model)
}

#[tokio::test]
async fn cut_at_every_byte() {
    let setup = Setup::new().await;
    for (model, name) in STREAMS {
        let request = request(model);
        let stream = fixture(name);
        let whole = setup.exchange(&request, Reply::Stream(stream.clone())).await.expect("an answer");
        let (mut answers, mut failures) = (0, 0);
        // A body that ends early, and (a slower test) a connection that does.
        for (end, stride) in [(End::Complete, 1), (End::Close, 13)] {
            for at in (0..stream.len()).step_by(stride) {
                match setup
                    .exchange(&request, Reply::Stream(stream.clone()).delivered(Delivery::cut(at, end.clone())))
                    .await
                {
                    Ok(answer) => {
                        assert!(same(&answer, &whole), "{name} cut at {at}: {answer:?}");
                        answers += 1;
                    }
                    Err(fault) => {
                        assert_eq!(fault.class, ErrorClass::Connection, "{name} cut at {at}: {fault}");
                        failures += 1;
                    }
                }
            }
        }
        // Only what follows the whole answer (usage, end mark) may be missing.
        assert!(failures > stream.len() / 2 && answers > 0, "{name}: {answers} answers, {failures} failures");
    }
}

#[tokio::test]
async fn chopped_into_pieces_of_any_size() {
    let setup = Setup::new().await;
    for (model, name) in STREAMS {
        let request = request(model);
        let whole = setup.exchange(&request, Reply::Stream(fixture(name))).await.expect("an answer");
        for bytes in [1, 2, 3, 7, 37, 500] {
            let delivery = Delivery { piece_bytes: Some(bytes), ..Delivery::default() };
            let answer =
                setup.exchange(&request, Reply::Stream(fixture(name)).delivered(delivery)).await.expect("an answer");
            assert_eq!(answer, whole, "{name} in pieces of {bytes}");
        }
    }
}

#[tokio::test]
async fn a_server_that_forgets_to_close_is_not_waited_for() {
    let setup = Setup::new().await;
    let stream = String::from_utf8(fixture("openai_tools.sse")).expect("UTF-8").replace("data: [DONE]\n\n", "");
    let delivery = Delivery { end: End::Hang, ..Delivery::default() };
    let answer =
        setup.exchange(&request("openai/gpt-5"), Reply::stream(stream).delivered(delivery)).await.expect("an answer");
    assert_eq!((answer.blocks.len(), answer.usage.output_tokens), (3, 89));
}

#[tokio::test]
async fn carriage_returns_and_a_byte_order_mark() {
    let setup = Setup::new().await;
    for (model, name) in STREAMS {
        let request = request(model);
        let whole = setup.exchange(&request, Reply::Stream(fixture(name))).await.expect("an answer");
        let text = String::from_utf8(fixture(name)).expect("UTF-8");
        for stream in [text.replace('\n', "\r\n"), text.replace('\n', "\r"), format!("\u{feff}{text}")] {
            assert_eq!(setup.exchange(&request, Reply::stream(stream)).await.expect("an answer"), whole, "{name}");
        }
    }
}
