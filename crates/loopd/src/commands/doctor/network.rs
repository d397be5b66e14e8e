//! The address to listen on, and the server that `LOOPD_URL` names.

use super::check;
use crate::client::{Client, ClientError};
use crate::settings::{Settings, process_env};
use loopd_sandbox::port::{Check, CheckVerdict};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use url::Url;

pub async fn checks(settings: &Settings) -> Vec<Check> {
    let mut found = vec![listen(settings.listen).await];
    if let Some(text) = process_env("LOOPD_URL") {
        found.push(server(&text).await);
    }
    found
}

async fn listen(address: SocketAddr) -> Check {
    let name = "listen address";
    let Err(fault) = TcpListener::bind(address) else {
        return check(name, CheckVerdict::Works, format!("{address} is free"), "");
    };
    match health(&format!("http://{address}")).await {
        Ok(_) => check(name, CheckVerdict::Works, format!("a loopd serves {address} already"), ""),
        Err(_) => {
            let remedy = "another program has it: choose another address with --listen or LOOPD_LISTEN";
            check(name, CheckVerdict::Degraded, format!("{address}: {fault}"), remedy)
        }
    }
}

async fn server(text: &str) -> Check {
    let name = "LOOPD_URL";
    match health(text).await {
        Ok(_) => check(name, CheckVerdict::Works, format!("a loopd answers at {text}"), ""),
        Err(fault) => check(name, CheckVerdict::Broken, fault, "start that server, or unset LOOPD_URL"),
    }
}

async fn health(url: &str) -> Result<Value, String> {
    let url = Url::parse(url).map_err(|fault| format!("`{url}` is not a URL: {fault}"))?;
    let asked = async { Client::new(url, process_env("LOOPD_API_KEY"))?.get(&["healthz"], &[]).await };
    asked.await.map_err(|fault: ClientError| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_another_program_has_is_a_weakness() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = other.local_addr().expect("an address");
        std::thread::spawn(move || {
            use std::io::Write;
            for mut stream in other.incoming().flatten() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>").ok();
            }
        });
        assert_eq!(listen(address).await.verdict, CheckVerdict::Degraded);
        assert_eq!(listen("127.0.0.1:0".parse().expect("an address")).await.verdict, CheckVerdict::Works);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_broken() {
        let found = server("http://127.0.0.1:1").await;
        assert_eq!(found.verdict, CheckVerdict::Broken);
        assert!(found.detail.contains("loopd serve"), "{}", found.detail);
    }
}
