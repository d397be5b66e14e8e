//! Egress from end to end: a proxy, servers of ours behind it, and whoever speaks to it.

mod opened;
mod world;
