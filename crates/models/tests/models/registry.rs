//! Which model is whose, with which key, to which address.

use crate::setup::{FixedClock, Setup, model, request};
use loopd_domain::usage::Price;
use loopd_models::testing::FakeProvider;
use loopd_models::{ConfigError, ModelsConfig, ProviderConfig, Registry, ResolveError, WireKind};
use std::sync::Arc;

fn build(config: ModelsConfig, env: &[(&str, &str)]) -> Result<Registry, ConfigError> {
    let env: Vec<(String, String)> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let read = move |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    Registry::from_config(config, &read, Arc::new(FixedClock))
}

fn registry(env: &[(&str, &str)]) -> Registry {
    build(ModelsConfig::default(), env).expect("a registry")
}

fn refusal(registry: &Registry, id: &str) -> ResolveError {
    registry.resolve(&model(id)).map(|resolved| resolved.full_id).expect_err("refused")
}

#[test]
fn names_find_their_provider() {
    let registry = registry(&[("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "k"), ("GEMINI_API_KEY", "k")]);
    for (id, full_id, name) in [
        ("claude-opus-5-5", "anthropic/claude-opus-5-5", "claude-opus-5-5"),
        ("gpt-5", "openai/gpt-5", "gpt-5"),
        ("o3-mini", "openai/o3-mini", "o3-mini"),
        ("gemini-3-pro", "gemini/gemini-3-pro", "gemini-3-pro"),
        ("ollama/hf.co/org/model:q4", "ollama/hf.co/org/model:q4", "hf.co/org/model:q4"),
        ("builtin/shell", "builtin/shell", "shell"),
    ] {
        let resolved = registry.resolve(&model(id)).map_err(|fault| fault.to_string()).expect(id);
        assert_eq!((resolved.full_id.as_str(), resolved.name.as_str()), (full_id, name));
    }
}

#[test]
fn what_cannot_be_called_says_why_and_what_would_be() {
    let registry = registry(&[]);
    let said = |id: &str| refusal(&registry, id).to_string();
    assert_eq!(
        said("anthropic/claude-opus-5"),
        "model `anthropic/claude-opus-5` needs a key: set ANTHROPIC_API_KEY and start again"
    );
    assert!(
        said("antropic/claude").contains("accepted: `anthropic/…`, `gemini/…`, `ollama/…`, `openai/…`, `builtin/…`")
    );
    assert!(said("llama").contains("`provider/name`"));
    assert!(said("builtin/poet").contains("accepted: `builtin/script`, `builtin/shell`"));
    assert!(said("openai/").contains("no name"));
}

#[test]
fn prices_are_built_in_extended_and_unknown() {
    let mut config = ModelsConfig::default();
    config.prices.insert("ollama/own".into(), Price { input: 1, output: 2, cache_read: 3, cache_write: 4 });
    let registry = build(config, &[("ANTHROPIC_API_KEY", "k")]).expect("a registry");
    let price = |id: &str| registry.resolve(&model(id)).map(|resolved| resolved.price).expect("resolves");
    assert_eq!(price("claude-opus-4-5-20251101").map(|price| price.input), Some(5_000_000));
    assert_eq!(price("ollama/own").map(|price| price.output), Some(2));
    assert_eq!(price("builtin/script").map(|price| price.output), Some(0));
    assert_eq!((price("anthropic/claude-next"), price("ollama/other")), (None, None));
    let listed: Vec<String> = registry.list().into_iter().map(|info| info.id).collect();
    assert!(listed.contains(&"anthropic/claude-opus-5-5".to_owned()) && listed.contains(&"ollama/own".to_owned()));
    assert!(listed.iter().all(|id| !id.starts_with("openai/")), "no key, not listed: {listed:?}");
    assert_eq!(listed[0], "builtin/shell");
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let provider = |name: &str, base_url: &str| ProviderConfig {
        name: name.into(),
        kind: WireKind::Openai,
        base_url: base_url.into(),
        api_key_env: None,
    };
    let refuse = |providers| {
        build(ModelsConfig { providers, ..ModelsConfig::default() }, &[]).map(|_| ()).expect_err("refused").to_string()
    };
    assert!(refuse(vec![provider("My Box", "http://h")]).contains("`My Box`"));
    assert!(refuse(vec![provider("builtin", "http://h")]).contains("`models.providers[0].name`"));
    assert!(refuse(vec![provider("a", "http://h"), provider("a", "http://h")]).contains("models.providers[1]"));
    assert!(refuse(vec![provider("a", "h:80")]).contains("accepted"));
    let fault = build(ModelsConfig::default(), &[("OPENAI_API_KEY", "a\nb")]).map(|_| ()).expect_err("two lines");
    assert!(fault.to_string().starts_with("OPENAI_API_KEY") && !fault.to_string().contains("a\nb"));
    assert!(toml_like(r#"{"providers": [{"name": "a", "kind": "grpc", "base_url": "x"}]}"#).is_err());
    assert!(toml_like(r#"{"provider": []}"#).is_err());
}

fn toml_like(text: &str) -> Result<ModelsConfig, serde_json::Error> {
    serde_json::from_str(text)
}

#[tokio::test]
async fn configured_providers_speak_their_wire_with_their_key() {
    let fake = FakeProvider::start().await.expect("a free port");
    let provider = |name: &str, kind, base_url, key: Option<&str>| ProviderConfig {
        name: name.to_owned(),
        kind,
        base_url,
        api_key_env: key.map(str::to_owned),
    };
    let providers = vec![
        provider("vllm", WireKind::Openai, fake.openai_url(), None),
        provider("proxy", WireKind::Anthropic, fake.anthropic_url(), Some("PROXY_KEY")),
        provider("closed", WireKind::Openai, fake.openai_url(), Some("CLOSED_KEY")),
    ];
    let registry =
        build(ModelsConfig { providers, ..ModelsConfig::default() }, &[("PROXY_KEY", "pk")]).expect("a registry");
    for id in ["vllm/qwen", "proxy/claude"] {
        let request = request(id);
        let resolved = registry.resolve(&request.model).map_err(|fault| fault.to_string()).expect(id);
        let body = resolved.provider.body(&request).expect("a body");
        let answer = resolved.provider.call(&request, body, &mut |_| {}).await.expect("an answer");
        assert_eq!(answer.blocks.len(), 1);
    }
    let requests = fake.requests();
    assert_eq!((requests[0].path.as_str(), requests[0].header("authorization")), ("/v1/chat/completions", None));
    assert_eq!((requests[1].path.as_str(), requests[1].header("x-api-key")), ("/v1/messages", Some("pk")));
    assert!(
        matches!(refusal(&registry, "closed/x"), ResolveError::MissingKey { variable, .. } if variable == "CLOSED_KEY")
    );
}

#[tokio::test]
async fn a_key_goes_to_its_own_origin_only() {
    let setup = Setup::new().await;
    let stranger = FakeProvider::start().await.expect("a free port");
    for (id, url) in [("openai/gpt-5", stranger.openai_url()), ("anthropic/claude-opus-5", stranger.anthropic_url())] {
        let mut request = request(id);
        request.model.base_url = Some(url);
        let resolved = setup.registry.resolve(&request.model).map_err(|fault| fault.to_string()).expect("resolves");
        assert_eq!(resolved.price, None, "a stranger's prices are not known");
        setup.call(&request).await.expect("an answer");
    }
    assert_eq!(stranger.requests().len(), 2);
    for recorded in stranger.requests() {
        assert_eq!((recorded.header("authorization"), recorded.header("x-api-key")), (None, None));
        assert!(!format!("{:?}", recorded.headers).contains("sk-"));
    }
    let mut own = request("openai/gpt-5");
    own.model.base_url = Some(format!("{}/other", setup.fake.openai_url()));
    setup.call(&own).await.expect("an answer");
    let recorded = setup.fake.requests();
    assert!(recorded[0].header("authorization").is_some() && recorded[0].path == "/v1/other/chat/completions");
}

#[test]
fn an_address_is_checked() {
    let registry = registry(&[("OPENAI_API_KEY", "k")]);
    for (id, base_url) in
        [("openai/x", "file:///etc/passwd"), ("openai/x", "http://u:p@h"), ("builtin/shell", "http://h")]
    {
        let mut reference = model(id);
        reference.base_url = Some(base_url.to_owned());
        assert!(matches!(registry.resolve(&reference).map(|_| ()), Err(ResolveError::Unusable { .. })), "{base_url}");
    }
}

/// Runs another test of this program where no certificate store can be found.
#[test]
fn a_machine_without_certificates_has_a_client() {
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program)
        .args(["--exact", "registry::names_find_their_provider"])
        .envs([("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")])
        .output()
        .expect("runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}
