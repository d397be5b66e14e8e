//! Archives on their way: down in pieces, up from a file, neither whole in memory.

use super::{Client, ClientError};
use futures_util::stream;
use reqwest::{Body, Response};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use url::Url;

const CHUNK_BYTES: usize = 64 << 10;

/// An answer that comes in pieces.
pub struct Download {
    base: Url,
    response: Response,
}

impl Download {
    /// The next piece; `None` when all of it has come. What breaks off is an error.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let chunk = self.response.chunk().await;
        let cut = |fault| ClientError::Cut { base: self.base.clone(), reason: super::failure::root_cause(&fault) };
        Ok(chunk.map_err(cut)?.map(|bytes| bytes.to_vec()))
    }
}

impl Client {
    pub async fn download(&self, path: &[&str], query: &[(&str, String)]) -> Result<Download, ClientError> {
        let request = self.patient.get(self.url(path, query));
        let response = self.answered(request).await?;
        Ok(Download { base: self.base.clone(), response })
    }

    /// Posts a file.
    pub async fn upload(&self, path: &[&str], file: File) -> Result<Value, ClientError> {
        let pieces = stream::unfold(file, async |mut file| {
            let mut piece = vec![0; CHUNK_BYTES];
            match file.read(&mut piece).await {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some((Ok(piece), file))
                }
                Err(fault) => Some((Err(fault), file)),
            }
        });
        let request = self.patient.post(self.url(path, &[])).header("content-type", "application/x-tar");
        let response = self.answered(request.body(Body::wrap_stream(pieces))).await?;
        let bytes = response.bytes().await.map_err(|fault| self.cut(fault))?;
        serde_json::from_slice(&bytes).map_err(|fault| self.not_ours(format!("an answer that is not JSON: {fault}")))
    }
}
