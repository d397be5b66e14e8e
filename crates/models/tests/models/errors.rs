//! Every way to fail, over HTTP, on both wires.

use crate::setup::{ANTHROPIC_KEY, OPENAI_KEY, Setup, request};
use loopd_models::testing::{Delivery, End, FakeProvider, Fault, Reply, Step};
use loopd_models::{ErrorClass, ModelError};
use serde_json::json;

const MODELS: [&str; 2] = ["anthropic/claude-opus-5-5", "openai/gpt-5"];

async fn fail(model: &str, planned: impl Into<loopd_models::testing::Planned>) -> ModelError {
    Setup::new().await.exchange(&request(model), planned).await.expect_err("a failure")
}

#[tokio::test]
async fn statuses_headers_and_the_key_in_a_message() {
    let reply = |status, message: &str| Reply::json(status, &json!({"error": {"type": "x", "message": message}}));
    for model in MODELS {
        let fault =
            fail(model, reply(429, "slow down").with_header("retry-after", "7").with_header("request-id", "req_7"))
                .await;
        assert_eq!(
            (fault.class, fault.status, fault.retry_after_ms),
            (ErrorClass::RateLimited, Some(429), Some(7_000))
        );
        assert_eq!(fault.request_id.as_deref(), Some("req_7"));
        let fault =
            fail(model, reply(529, "overloaded").with_header("retry-after", "Mon, 23 Nov 2026 20:00:30 GMT")).await;
        assert_eq!((fault.class, fault.retry_after_ms), (ErrorClass::Overloaded, Some(30_000)));
        let fault = fail(model, reply(500, "x").with_header("x-should-retry", "false")).await;
        assert!(!fault.class.is_retryable());
        let fault = fail(model, reply(400, "prompt is too long: 9 tokens > 8 maximum")).await;
        assert_eq!(fault.class, ErrorClass::ContextTooLong);
        let fault = fail(model, reply(401, &format!("bad key {ANTHROPIC_KEY} {OPENAI_KEY}"))).await;
        assert_eq!(fault.class, ErrorClass::Authentication);
        assert!(fault.message.contains("_API_KEY"), "{fault}");
        let own = if model.starts_with("anthropic") { ANTHROPIC_KEY } else { OPENAI_KEY };
        assert!(!format!("{fault} {fault:?}").contains(own), "{fault}");
    }
}

#[tokio::test]
async fn every_scripted_class_comes_out_as_itself() {
    for model in MODELS {
        for class in ErrorClass::ALL {
            let fault =
                Fault { class, status: None, retry_after_ms: Some(20), message: None, after_text: None, times: None };
            let fault = fail(model, Step { fault: Some(fault), ..Step::default() }).await;
            assert_eq!(fault.class, class, "{model}: {fault}");
            assert!(!fault.message.is_empty() && fault.message.chars().count() < 1_500);
        }
    }
}

#[tokio::test]
async fn failures_in_mid_stream_come_after_their_text() {
    for model in MODELS {
        for class in [
            ErrorClass::Overloaded,
            ErrorClass::RateLimited,
            ErrorClass::Server,
            ErrorClass::Connection,
            ErrorClass::Timeout,
            ErrorClass::Garbage,
        ] {
            let setup = Setup::new().await;
            let after_text = Some("Well".to_owned());
            let fault = Fault { class, status: None, retry_after_ms: None, message: None, after_text, times: None };
            setup.fake.plan(Step { fault: Some(fault), ..Step::default() });
            let (answer, deltas) = setup.call_with_deltas(&request(model)).await;
            assert_eq!(answer.expect_err("a failure").class, class, "{model}");
            assert_eq!(deltas.len(), 2, "{model} {class}: {deltas:?}");
        }
    }
}

#[tokio::test]
async fn pages_instead_of_answers() {
    for model in MODELS {
        let fault = fail(model, Reply::text(200, "text/html", "<!doctype html><title>Sign in</title>")).await;
        assert_eq!(fault.class, ErrorClass::Garbage);
        assert!(
            fault.message.contains("HTML") && fault.message.contains("Sign in") && fault.message.contains("200"),
            "{fault}"
        );
        assert_eq!(fail(model, Reply::text(200, "text/plain", "hello\n")).await.class, ErrorClass::Garbage);
        assert_eq!(fail(model, Reply::text(200, "application/json", "{\"a\":1}")).await.class, ErrorClass::Garbage);
        assert_eq!(fail(model, Reply::text(200, "application/json", "{nonsense}")).await.class, ErrorClass::Garbage);
        assert_eq!(fail(model, Reply::text(502, "text/html", "<html>")).await.class, ErrorClass::Server);
        let fault =
            fail(model, Reply::json(200, &json!({"error": {"type": "overloaded_error", "message": "m"}}))).await;
        assert_eq!(fault.class, ErrorClass::Overloaded);
    }
}

#[tokio::test]
async fn nothing_silence_and_no_end() {
    for model in MODELS {
        assert_eq!(fail(model, Reply::Nothing).await.class, ErrorClass::Connection);
        assert_eq!(fail(model, Reply::stream("")).await.class, ErrorClass::Connection);
        assert_eq!(fail(model, Reply::Silence).await.class, ErrorClass::Timeout);
        let hangs = Reply::stream(": wait\n\n").delivered(Delivery { end: End::Hang, ..Delivery::default() });
        assert_eq!(fail(model, hangs).await.class, ErrorClass::Timeout);
        let endless = End::Endless(vec![b'x'; 1 << 20]);
        let fault =
            fail(model, Reply::stream("data: ").delivered(Delivery { end: endless, ..Delivery::default() })).await;
        assert_eq!(fault.class, ErrorClass::Garbage, "one event without end: {fault}");
    }
    let comment = format!(": {}\n\n", "ping ".repeat(50_000));
    let delivery = Delivery { end: End::Endless(comment.into_bytes()), ..Delivery::default() };
    let fault = fail(MODELS[0], Reply::stream(": ping\n\n").delivered(delivery)).await;
    assert_eq!(fault.class, ErrorClass::Garbage, "pings without end: {fault}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = FakeProvider::start().await.expect("a free port");
    for model in MODELS {
        let reply = Reply::text(307, "text/plain", "").with_header("location", &other.openai_url());
        let fault = fail(model, reply).await;
        assert_eq!((fault.class, fault.status), (ErrorClass::NotFound, Some(307)));
        assert!(fault.message.contains(&other.openai_url()), "{fault}");
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let setup = Setup::new().await;
    let gone = FakeProvider::start().await.expect("a free port").openai_url();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let mut request = request("openai/gpt-5");
    request.model.base_url = Some(gone.clone());
    let fault = setup.call(&request).await.expect_err("nobody listens");
    assert_eq!(fault.class, ErrorClass::Connection);
    assert!(fault.message.contains("cannot be reached") && fault.message.contains(&gone), "{fault}");
}
