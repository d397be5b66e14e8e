//! What clients see of our nouns, and what they may send of them: the Managed Agents wire format plus loopd's additions.
//!
//! Pure: values in, values out. Reading names the field that is wrong; writing sends every field of an object, `null`,
//! `[]` or `{}` where there is nothing, because official clients read absent fields as `None` and then trip over them.

pub mod agent;
pub mod archive;
pub mod content;
pub mod credential;
pub mod environment;
pub mod event;
pub mod input;
pub mod mcp;
pub mod metadata;
pub mod model;
pub mod page;
pub mod session;
pub mod thread;
pub mod tool;
pub mod usage;
pub mod vault;
