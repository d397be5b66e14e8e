//! HTTP tools against real sockets: what is sent, what a call comes to, and how often it is sent.

mod service;

use loopd_domain::agent::HostTarget;
use loopd_domain::content::ContentBlock;
use loopd_domain::event::{EffectClass, Outcome};
use loopd_domain::limits::{HOST_REDIRECTS_MAX, KEYED_ATTEMPTS_MAX, TOOL_RESULT_BYTES_MAX};
use loopd_host_tools::{AllowHosts, HostCall, HostPattern, HostResult, HostTools, NoTokens, RemoteTools};
use serde_json::json;
use service::{Deed, Service, hangs_up, nobody};
use std::sync::Arc;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn to(url: &str, effect: EffectClass) -> HostCall {
    HostCall {
        target: HostTarget::Http { url: url.to_owned(), timeout_ms: 300 },
        effect,
        input: json!({"seat": 7}),
        key: "loopd_abc".to_owned(),
        traceparent: Some(TRACEPARENT.to_owned()),
    }
}

async fn call(url: &str, effect: EffectClass) -> HostResult {
    let tools = RemoteTools::new(AllowHosts::Any).expect("a client");
    tools.for_session(Arc::new(NoTokens)).call(to(url, effect)).await
}

fn text(result: &HostResult) -> &str {
    match result.content.as_slice() {
        [ContentBlock::Text { text }] => text,
        other => panic!("not one text: {other:?}"),
    }
}

fn fails(times: usize) -> Vec<Deed> {
    vec![Deed::Answer(503, "busy".to_owned()); times]
}

#[tokio::test]
async fn the_input_is_posted_with_its_key_and_the_body_is_the_result() {
    let service = Service::start([Deed::Answer(201, "{\"booked\":true}".to_owned())]).await;
    let result = call(&service.url, EffectClass::Once).await;
    assert_eq!((text(&result), result.is_error, result.outcome), ("{\"booked\":true}", false, Outcome::Completed));
    let [seen] = service.seen().try_into().expect("one request");
    assert_eq!(seen.body, "{\"seat\":7}");
    assert_eq!(seen.header("idempotency-key"), "loopd_abc");
    assert_eq!(seen.header("traceparent"), TRACEPARENT);
    assert_eq!(seen.header("content-type"), "application/json");
    assert!(seen.header("user-agent").starts_with("loopd/"));
}

#[tokio::test]
async fn an_answer_that_is_no_success_is_an_error_with_its_status_and_body() {
    for status in [404, 500] {
        let service = Service::start([Deed::Answer(status, "no such seat".to_owned())]).await;
        let result = call(&service.url, EffectClass::Once).await;
        assert_eq!((result.is_error, result.outcome), (true, Outcome::Completed));
        assert_eq!(text(&result), format!("The service answered {status}: no such seat"));
        assert_eq!(service.seen().len(), 1, "an undeclared call is sent once");
    }
}

#[tokio::test]
async fn what_could_not_be_sent_did_not_happen() {
    for effect in EffectClass::DECLARED {
        let result = call(&nobody().await, effect).await;
        assert_eq!((result.is_error, result.outcome), (true, Outcome::NotRun), "{result:?}");
        assert!(text(&result).contains("cannot be reached"), "{result:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_means_what_the_class_says() {
    for (effect, outcome, sent) in [
        (EffectClass::Pure, Outcome::Completed, 1),
        (EffectClass::Once, Outcome::Unknown, 1),
        (EffectClass::Keyed, Outcome::Unknown, KEYED_ATTEMPTS_MAX as usize),
    ] {
        let (url, seen) = hangs_up("").await;
        let result = call(&url, effect).await;
        assert_eq!((result.is_error, result.outcome), (true, outcome), "{effect:?}: {result:?}");
        let seen = seen.lock();
        assert_eq!(seen.len(), sent, "{effect:?}");
        assert!(seen.iter().all(|request| request.contains("idempotency-key: loopd_abc\r\n")), "{seen:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let (url, _) = hangs_up("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    let result = call(&url, EffectClass::Once).await;
    assert_eq!(result.outcome, Outcome::Unknown);
    assert!(text(&result).starts_with("outcome_unknown: ") && text(&result).contains("broke off"), "{result:?}");
}

#[tokio::test]
async fn silence_means_what_the_class_says() {
    for (effect, outcome) in [(EffectClass::Pure, Outcome::TimedOut), (EffectClass::Once, Outcome::Unknown)] {
        let service = Service::start([Deed::Stall]).await;
        let result = call(&service.url, effect).await;
        assert_eq!((result.is_error, result.outcome), (true, outcome), "{effect:?}");
        assert!(text(&result).contains("did not answer in 300 ms"), "{result:?}");
    }
}

#[tokio::test]
async fn a_keyed_call_is_sent_again_until_it_is_answered() {
    let service = Service::start([Deed::Stall, Deed::Answer(503, "busy".to_owned())]).await;
    let result = call(&service.url, EffectClass::Keyed).await;
    assert_eq!((text(&result), result.outcome), ("ok", Outcome::Completed));
    let keys: Vec<String> = service.seen().iter().map(|s| s.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys, ["loopd_abc"; 3]);
}

#[tokio::test]
async fn a_service_that_only_fails_is_believed_unless_an_attempt_was_lost() {
    let service = Service::start(fails(KEYED_ATTEMPTS_MAX as usize)).await;
    let result = call(&service.url, EffectClass::Keyed).await;
    assert_eq!((text(&result), result.outcome), ("The service answered 503: busy", Outcome::Completed));
    let deeds = [Deed::Stall].into_iter().chain(fails(KEYED_ATTEMPTS_MAX as usize - 1));
    let service = Service::start(deeds).await;
    assert_eq!(call(&service.url, EffectClass::Keyed).await.outcome, Outcome::Unknown);
    assert_eq!(service.seen().len(), KEYED_ATTEMPTS_MAX as usize);
}

#[tokio::test]
async fn a_redirect_is_followed_only_within_its_origin_and_with_its_body() {
    let service = Service::start([Deed::Redirect(307, "/moved".to_owned())]).await;
    let result = call(&service.url, EffectClass::Once).await;
    assert_eq!((text(&result), service.seen().len()), ("ok", 2));
    assert_eq!(service.seen()[1].body, "{\"seat\":7}");

    let other = Service::start([]).await;
    for deed in [Deed::Redirect(307, other.url.clone()), Deed::Redirect(302, "/moved".to_owned())] {
        let service = Service::start([deed]).await;
        let result = call(&service.url, EffectClass::Once).await;
        assert!(result.is_error && text(&result).contains("a redirect that is not followed"), "{result:?}");
        assert_eq!(service.seen().len(), 1);
    }
    assert!(other.seen().is_empty(), "nothing went to another host");

    let circle = vec![Deed::Redirect(307, "/moved".to_owned()); HOST_REDIRECTS_MAX + 5];
    let service = Service::start(circle).await;
    assert!(call(&service.url, EffectClass::Once).await.is_error);
    assert_eq!(service.seen().len(), HOST_REDIRECTS_MAX + 1);
}

#[tokio::test]
async fn a_long_answer_is_cut_and_says_so() {
    for (status, is_error) in [(200, false), (400, true)] {
        let service = Service::start([Deed::Answer(status, "x".repeat(3 * TOOL_RESULT_BYTES_MAX))]).await;
        let result = call(&service.url, EffectClass::Pure).await;
        assert_eq!(result.is_error, is_error);
        assert!(text(&result).len() <= TOOL_RESULT_BYTES_MAX);
        assert!(text(&result).ends_with("bytes were cut off here]"));
    }
}

#[tokio::test]
async fn the_operator_says_where_tools_may_go() {
    let service = Service::start([]).await;
    let only = HostPattern::parse("example.com").expect("a pattern");
    let tools = RemoteTools::new(AllowHosts::Only(vec![only])).expect("a client");
    let result = tools.for_session(Arc::new(NoTokens)).call(to(&service.url, EffectClass::Once)).await;
    assert_eq!((result.is_error, result.outcome), (true, Outcome::NotRun));
    assert!(text(&result).contains("`127.0.0.1`") && text(&result).contains("accepted: `example.com`"), "{result:?}");
    assert!(service.seen().is_empty());
}
