//! What a machine that was written to disk can be read by again.

use super::super::vmm::Shape;
use super::command::megabytes;
use crate::Accelerator;
use serde::{Deserialize, Serialize};

/// How far the rate of the host's counter may be from what a guest was told, in parts of a thousand. Two looks at the same counter
/// differ by less, and a guest's clock is set when it wakes.
const RATE_OFF_PER_MILLE: u64 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Of QEMU.
    pub version: String,
    pub kvm: bool,
    pub memory_mb: u64,
    pub cpus: u32,
    pub disks: usize,
    /// Of the counter that an emulated guest sees.
    pub tsc_khz: Option<u64>,
}

impl Manifest {
    pub(super) fn new(version: &str, accelerator: Accelerator, tsc_khz: Option<u64>, shape: &Shape) -> Self {
        Manifest {
            version: version.to_owned(),
            kvm: accelerator == Accelerator::Kvm,
            memory_mb: megabytes(shape.memory_bytes),
            cpus: shape.cpus,
            disks: 2 + shape.layers.len(),
            tsc_khz,
        }
    }

    /// Why a machine that was written cannot become one that is wanted.
    pub(super) fn refuses(&self, wanted: &Manifest) -> Option<String> {
        let differs = |what: &str, own: &dyn std::fmt::Display, other: &dyn std::fmt::Display| {
            Some(format!("it was written with {what} `{own}`, wanted is `{other}`"))
        };
        if self.version != wanted.version {
            return differs("version", &self.version, &wanted.version);
        }
        if self.kvm != wanted.kvm {
            return differs("kvm", &self.kvm, &wanted.kvm);
        }
        if self.memory_mb != wanted.memory_mb {
            return differs("megabytes of memory", &self.memory_mb, &wanted.memory_mb);
        }
        if self.cpus != wanted.cpus {
            return differs("processors", &self.cpus, &wanted.cpus);
        }
        if self.disks != wanted.disks {
            return differs("disks", &self.disks, &wanted.disks);
        }
        let (own, other) = (self.tsc_khz.unwrap_or(0), wanted.tsc_khz.unwrap_or(0));
        if own.abs_diff(other) > own / 1_000 * RATE_OFF_PER_MILLE {
            return differs("counter rate in kHz", &own, &other);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_machine_reads_what_was_written() {
        let own = Manifest {
            version: "qemu 7.2".to_owned(),
            kvm: false,
            memory_mb: 128,
            cpus: 1,
            disks: 2,
            tsc_khz: Some(2_596_140),
        };
        assert_eq!(own.refuses(&own), None);
        assert_eq!(own.refuses(&Manifest { tsc_khz: Some(2_596_135), ..own.clone() }), None);
        let others = [
            Manifest { version: "qemu 8.0".to_owned(), ..own.clone() },
            Manifest { kvm: true, ..own.clone() },
            Manifest { memory_mb: 256, ..own.clone() },
            Manifest { cpus: 2, ..own.clone() },
            Manifest { disks: 3, ..own.clone() },
            Manifest { tsc_khz: Some(3_000_000), ..own.clone() },
            Manifest { tsc_khz: None, ..own.clone() },
        ];
        for other in others {
            assert!(own.refuses(&other).is_some(), "{other:?}");
        }
    }
}
