//! One target per file.

pub(crate) mod archive;
pub(crate) mod aws_signature;
pub(crate) mod bodies;
pub(crate) mod body_replacement;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod files_stream;
pub(crate) mod frames;
pub(crate) mod hosts;
pub(crate) mod jail_wire;
pub(crate) mod journal;
pub(crate) mod layer;
pub(crate) mod link;
pub(crate) mod provider_stream;
pub(crate) mod proxied;
pub(crate) mod tls_hello;
