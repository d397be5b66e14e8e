//! Egress from end to end: a proxy, servers of ours behind it, and whoever speaks to it.

mod addresses;
mod answers;
mod bodies;
mod clear;
mod faults;
mod opened;
mod programs;
mod signed;
mod tunnels;
mod world;
