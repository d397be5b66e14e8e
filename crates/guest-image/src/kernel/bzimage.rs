//! The kernel that a `vmlinuz` of x86 carries, packed. <https://docs.kernel.org/arch/x86/boot.html>

use crate::GuestImageError;
use crate::elf::{half, short};
use crate::unpack::{self, Format};
use std::path::Path;

const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_BYTES: usize = 0x24c;
/// The first protocol that says where the payload is.
const PROTOCOL_MIN: u16 = 0x208;

pub(crate) fn vmlinux(bytes: &[u8], path: &Path) -> Result<Vec<u8>, GuestImageError> {
    let refused = |why: &str| GuestImageError::broken(format!("`{}`: {why}", path.display()));
    if bytes.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(refused("neither a `vmlinux` (64-bit ELF) nor a `vmlinuz` (bzImage) nor a Debian package"));
    }
    if short(bytes, PROTOCOL).is_none_or(|protocol| protocol < PROTOCOL_MIN) {
        return Err(refused("a kernel older than Linux 2.6.26"));
    }
    let packed = payload(bytes).ok_or_else(|| refused("it is cut off"))?;
    let format = Format::of(packed).ok_or_else(|| {
        refused("its kernel is packed in a way that is not known here; gzip, lz4, xz and zstd are. Give its `vmlinux`")
    })?;
    unpack::whole(format, packed, &path.display().to_string())
}

fn payload(bytes: &[u8]) -> Option<&[u8]> {
    // 0 means 4, says the protocol.
    let setup = match *bytes.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = (setup + 1) * 512 + half(bytes, PAYLOAD_OFFSET)? as usize;
    bytes.get(begin..begin + half(bytes, PAYLOAD_BYTES)? as usize)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::elf;

    /// A `vmlinuz` around this, as `arch/x86/boot` builds one.
    pub(crate) fn around(packed: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512 + 100];
        bytes[SETUP_SECTORS] = 2;
        bytes[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        bytes[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
        bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&100_u32.to_le_bytes());
        bytes[PAYLOAD_BYTES..PAYLOAD_BYTES + 4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
        bytes.extend([0xee; 40]);
        bytes
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        let kernel = elf::tests::kernel(true);
        let mut packed = zstd::encode_all(&kernel[..], 1).unwrap();
        packed.extend((kernel.len() as u32).to_le_bytes());
        assert_eq!(vmlinux(&around(&packed), Path::new("vmlinuz")).unwrap(), kernel);
    }

    #[test]
    fn others_are_refused_with_what_is_wrong() {
        let told = |bytes: &[u8]| vmlinux(bytes, Path::new("/boot/k")).unwrap_err().to_string();
        assert!(told(b"\x7fELF").starts_with("`/boot/k`: neither a `vmlinux`"));
        assert!(told(&around(b"BZh91AY")).contains("gzip, lz4, xz and zstd"));
        let whole = around(&zstd::encode_all(&b"kernel"[..], 1).unwrap());
        assert!(told(&whole[..whole.len() - 45]).contains("cut off"));
        let mut old = whole;
        old[PROTOCOL + 1] = 1;
        assert!(told(&old).contains("older"));
    }
}
