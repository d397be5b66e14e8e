//! Model providers: which have what they need.

use super::check;
use crate::compose;
use crate::settings::{Env, Settings};
use loopd_domain::agent::ModelRef;
use loopd_models::{Registry, ResolveError};
use loopd_sandbox::port::{Check, CheckVerdict};

/// Providers that need no configuration but, some of them, a key.
const KNOWN: [&str; 5] = ["builtin", "anthropic", "openai", "gemini", "ollama"];

pub fn checks(settings: &Settings, env: Env<'_>) -> Vec<Check> {
    match compose::models(&settings.config, env, compose::system_clock()) {
        Ok(registry) => {
            let configured = settings.config.models.providers.iter().map(|p| p.name.as_str());
            let extra: Vec<&str> = configured.filter(|name| !KNOWN.contains(name)).collect();
            KNOWN.into_iter().chain(extra).map(|name| provider(&registry, name)).collect()
        }
        Err(fault) => vec![check("configuration", CheckVerdict::Broken, format!("{fault:#}"), "mend loopd.toml")],
    }
}

/// A provider without a key is not a weakness of this machine: it is merely not in use.
fn provider(registry: &Registry, name: &str) -> Check {
    let model = if name == "builtin" { "shell" } else { "any" };
    let id = format!("{name}/{model}");
    let asked = ModelRef { id, effort: None, base_url: None, max_tokens: None, temperature: None, extra: None };
    match registry.resolve(&asked) {
        Ok(_) if name == "builtin" => check(name, CheckVerdict::Works, "scripted models; no key, no network", ""),
        Ok(_) => check(name, CheckVerdict::Works, "configured (not called)", ""),
        Err(ResolveError::MissingKey { variable, .. }) => {
            check(name, CheckVerdict::Works, "not in use", format!("set {variable} to use it"))
        }
        Err(fault) => check(name, CheckVerdict::Broken, fault.to_string(), "mend loopd.toml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Place;

    fn found(env: &[(&str, &str)]) -> Vec<Check> {
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let settings = Settings::resolve(&Place { data: None, config: None }, &env).expect("fine");
        checks(&settings, &env)
    }

    #[test]
    fn a_key_makes_the_difference_and_is_not_shown() {
        let anthropic = |checks: Vec<Check>| checks.into_iter().find(|c| c.name == "anthropic").expect("known");
        assert!(anthropic(found(&[])).remedy.contains("ANTHROPIC_API_KEY"));
        let with = anthropic(found(&[("ANTHROPIC_API_KEY", "sk-secret")]));
        assert!(with.remedy.is_empty() && !format!("{with:?}").contains("sk-secret"), "{with:?}");
    }

    #[test]
    fn what_needs_nothing_always_works() {
        assert!(found(&[]).iter().any(|c| c.name == "builtin" && c.remedy.is_empty()));
        assert!(found(&[]).iter().all(|c| c.verdict == CheckVerdict::Works));
    }

    #[test]
    fn an_unusable_address_is_broken() {
        let broken = found(&[("OPENAI_BASE_URL", "nonsense"), ("OPENAI_API_KEY", "k")]);
        assert_eq!(broken[0].verdict, CheckVerdict::Broken);
        assert!(broken[0].detail.contains("nonsense"), "{broken:?}");
    }
}
