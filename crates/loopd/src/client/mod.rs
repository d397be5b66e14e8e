//! A client of the HTTP interface. It knows nothing but the wire: the same code talks to a server far away and to the one
//! that runs inside this command.

mod failure;
mod sse;
mod transfer;

pub use failure::ClientError;
pub use sse::{Frame, Frames};

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams carry a ping at least twice in this time.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// For archives: nobody knows how long a server has to work before it answers.
    patient: reqwest::Client,
    base: Url,
    key: Option<String>,
}

impl Client {
    pub fn new(base: Url, key: Option<String>) -> Result<Self, ClientError> {
        let build = |builder: reqwest::ClientBuilder| {
            let builder = builder.connect_timeout(CONNECT_TIMEOUT);
            let builder = match base.scheme() {
                // Nothing to verify; a machine without CA certificates must be able to talk to itself.
                "http" => builder.tls_certs_only([]).no_proxy(),
                _ => builder,
            };
            builder.build().map_err(|source| ClientError::Setup { source })
        };
        let http = build(reqwest::Client::builder().read_timeout(SILENCE_MAX))?;
        let patient = build(reqwest::Client::builder())?;
        Ok(Client { http, patient, base, key })
    }

    pub async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.json(Method::GET, path, query, None).await
    }

    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, &[], Some(body)).await
    }

    pub async fn post_with(&self, path: &[&str], query: &[(&str, String)], body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, query, Some(body)).await
    }

    /// Posts what can take the server long before it answers.
    pub async fn post_patiently(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        let request = self.patient.post(self.url(path, &[])).header("content-type", "application/json");
        let response = self.answered(request.body(body.to_string())).await?;
        let bytes = response.bytes().await.map_err(|fault| self.cut(fault))?;
        serde_json::from_slice(&bytes).map_err(|fault| self.not_ours(format!("an answer that is not JSON: {fault}")))
    }

    pub async fn delete_where(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.json(Method::DELETE, path, query, None).await
    }

    pub async fn delete(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.json(Method::DELETE, path, &[], None).await
    }

    /// Posts and reads the answer as a stream of frames.
    pub async fn post_stream(&self, path: &[&str], body: &Value) -> Result<Frames, ClientError> {
        self.send(Method::POST, path, &[], Some(body)).await.map(|r| Frames::new(self.base.clone(), r))
    }

    pub async fn get_stream(&self, path: &[&str], query: &[(&str, String)]) -> Result<Frames, ClientError> {
        self.send(Method::GET, path, query, None).await.map(|r| Frames::new(self.base.clone(), r))
    }

    /// Every row of a list that is given in pages, up to `limit` rows.
    pub async fn list(&self, path: &[&str], query: &[(&str, String)], limit: usize) -> Result<Vec<Value>, ClientError> {
        let mut rows = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let mut asked = query.to_vec();
            asked.extend(page.take().map(|page| ("page", page)));
            let mut answer = self.get(path, &asked).await?;
            let Value::Array(data) = answer["data"].take() else { return Err(self.not_ours("no `data` in a list")) };
            let none_left = data.is_empty();
            rows.extend(data);
            page = answer["next_page"].as_str().map(str::to_owned);
            if none_left || page.is_none() || rows.len() >= limit {
                rows.truncate(limit);
                return Ok(rows);
            }
        }
    }

    async fn json(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let response = self.send(method, path, query, body).await?;
        let bytes = response.bytes().await.map_err(|fault| self.cut(fault))?;
        serde_json::from_slice(&bytes).map_err(|fault| self.not_ours(format!("an answer that is not JSON: {fault}")))
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Response, ClientError> {
        let mut request = self.http.request(method, self.url(path, query));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        self.answered(request).await
    }

    /// Sends with the key that there may be; a refusal is an error.
    async fn answered(&self, mut request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|fault| self.unreachable(fault))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refusal(status, response).await),
        }
    }

    async fn refusal(&self, status: StatusCode, response: Response) -> ClientError {
        match response.bytes().await {
            Ok(body) => failure::refused(&self.base, status.as_u16(), &body),
            Err(fault) => self.cut(fault),
        }
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable { base: self.base.clone(), reason: failure::root_cause(&source) }
    }

    fn cut(&self, source: reqwest::Error) -> ClientError {
        ClientError::Cut { base: self.base.clone(), reason: failure::root_cause(&source) }
    }

    fn not_ours(&self, what: impl Into<String>) -> ClientError {
        ClientError::NotLoopd { base: self.base.clone(), what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_a_prefix_is_kept() {
        let client = |base: &str| Client::new(Url::parse(base).expect("a url"), None).expect("a client");
        let url = client("http://h:1").url(&["v1", "sessions", "../x"], &[("statuses[]", "idle".to_owned())]);
        assert_eq!(url.as_str(), "http://h:1/v1/sessions/..%2Fx?statuses%5B%5D=idle");
        assert_eq!(client("http://h/loop/").url(&["v1"], &[]).as_str(), "http://h/loop/v1");
    }
}
