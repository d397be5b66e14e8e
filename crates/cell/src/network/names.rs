//! Which address below 127.1.0.0/16 stands for which host, and what listens there.
//!
//! An address is derived from its name, so that a name has the same one again after it was forgotten, or after the stub was
//! started anew: a program that still has an old answer reaches the host that it asked for, or nobody. Who was not asked for
//! the longest time is forgotten first; a host with open connections never is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

/// The network's address and broadcast address look odd to programs.
const ADDRESSES: u64 = (1 << 16) - 2;

#[derive(Debug)]
pub struct Names<L> {
    hosts: Vec<Host<L>>,
    max: usize,
    /// Counts how often anything was asked for.
    clock: u64,
}

#[derive(Debug)]
pub struct Host<L> {
    pub name: String,
    pub address: Ipv4Addr,
    pub listeners: L,
    pub connections: usize,
    used: u64,
}

impl<L> Names<L> {
    /// Remembers at most so many.
    pub fn new(max: usize) -> Self {
        Names { hosts: Vec::new(), max, clock: 0 }
    }

    /// The address of a host; `listen` is called for one that is not known yet. `None`: all that are known are in use.
    pub fn resolve<E>(
        &mut self,
        name: &str,
        listen: impl FnOnce(Ipv4Addr) -> Result<L, E>,
    ) -> Result<Option<Ipv4Addr>, E> {
        self.clock += 1;
        let clock = self.clock;
        if let Some(host) = self.hosts.iter_mut().find(|host| host.name == name) {
            host.used = clock;
            return Ok(Some(host.address));
        }
        if self.hosts.len() >= self.max && !self.forget_one() {
            return Ok(None);
        }
        let Some(address) = self.free_address(name) else { return Ok(None) };
        let listeners = listen(address)?;
        self.hosts.push(Host { name: name.to_owned(), address, listeners, connections: 0, used: clock });
        Ok(Some(address))
    }

    pub fn name_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.hosts.iter().find(|host| host.address == address).map(|host| host.name.as_str())
    }

    pub fn hosts(&self) -> &[Host<L>] {
        &self.hosts
    }

    /// A connection to a host begins.
    pub fn connect(&mut self, address: Ipv4Addr) {
        self.clock += 1;
        let clock = self.clock;
        for host in self.hosts.iter_mut().filter(|host| host.address == address) {
            host.connections += 1;
            host.used = clock;
        }
    }

    /// It has ended.
    pub fn disconnect(&mut self, address: Ipv4Addr) {
        for host in self.hosts.iter_mut().filter(|host| host.address == address) {
            host.connections -= 1;
        }
    }

    fn forget_one(&mut self) -> bool {
        let idle = self.hosts.iter().enumerate().filter(|(_, host)| host.connections == 0);
        let oldest = idle.min_by_key(|(_, host)| host.used).map(|(at, _)| at);
        oldest.map(|at| self.hosts.swap_remove(at)).is_some()
    }

    /// There are far more addresses than hosts, so this ends soon.
    fn free_address(&self, name: &str) -> Option<Ipv4Addr> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let first = hasher.finish() % ADDRESSES;
        let mut candidates = (0..ADDRESSES).map(|step| {
            let [.., high, low] = ((first + step) % ADDRESSES + 1).to_be_bytes();
            Ipv4Addr::new(127, 1, high, low)
        });
        candidates.find(|address| self.name_of(*address).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn resolve(names: &mut Names<()>, name: &str) -> Option<Ipv4Addr> {
        names.resolve(name, |_| Ok::<_, Infallible>(())).unwrap()
    }

    #[test]
    fn a_name_keeps_its_address() {
        let mut names = Names::new(3);
        let first = resolve(&mut names, "a.example").unwrap();
        assert!(first.octets().starts_with(&[127, 1]));
        assert_ne!(resolve(&mut names, "b.example"), Some(first));
        assert_eq!(resolve(&mut names, "a.example"), Some(first));
        assert_eq!(names.name_of(first), Some("a.example"));
        assert_eq!(resolve(&mut Names::new(3), "a.example"), Some(first), "in another stub too");
    }

    #[test]
    fn the_one_not_asked_for_longest_makes_way() {
        let mut names = Names::new(2);
        let a = resolve(&mut names, "a").unwrap();
        let b = resolve(&mut names, "b").unwrap();
        resolve(&mut names, "a");
        resolve(&mut names, "c");
        assert_eq!((names.name_of(a), names.name_of(b)), (Some("a"), None));
        assert_eq!(names.hosts().len(), 2);
    }

    #[test]
    fn a_host_in_use_keeps_its_address() {
        let mut names = Names::new(2);
        let (a, b) = (resolve(&mut names, "a").unwrap(), resolve(&mut names, "b").unwrap());
        names.connect(a);
        resolve(&mut names, "c");
        assert_eq!((names.name_of(a), names.name_of(b)), (Some("a"), None));
        let c = resolve(&mut names, "c").unwrap();
        names.connect(c);
        assert_eq!(resolve(&mut names, "d"), None);
        names.disconnect(a);
        assert!(resolve(&mut names, "d").is_some());
        assert_eq!(names.name_of(a), None);
    }

    #[test]
    fn names_with_the_same_place_have_different_addresses() {
        let mut names = Names::new(3_000);
        let mut seen = std::collections::HashSet::new();
        assert!((0..3_000).all(|number| seen.insert(resolve(&mut names, &format!("host-{number}")).unwrap())));
    }

    #[test]
    fn where_nothing_can_listen_nothing_is_remembered() {
        let mut names: Names<()> = Names::new(2);
        assert_eq!(names.resolve("a", |_| Err("no")), Err("no"));
        assert!(names.hosts().is_empty());
    }
}
