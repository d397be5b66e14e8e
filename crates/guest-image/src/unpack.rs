//! Decompression by what the first bytes say: kernels, modules and packages come in several formats.

use crate::GuestImageError;
use crate::elf::half;
use loopd_domain::limits::GUEST_PART_BYTES_MAX;
use std::io::{self, BufReader, Read};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Xz,
    Zstd,
    /// What `lz4 -l` writes, and Debian's kernels are packed by.
    Lz4Legacy,
}

const LZ4_MAGIC: &[u8] = b"\x02\x21\x4c\x18";
/// Of a block, unpacked.
const LZ4_BLOCK_BYTES: usize = 8 << 20;

impl Format {
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Format); 4] = [
            (b"\x1f\x8b\x08", Format::Gzip),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (LZ4_MAGIC, Format::Lz4Legacy),
        ];
        MAGIC.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| format)
    }

    /// What is in the first stream of `packed`; whatever follows it is not looked at.
    pub(crate) fn reader<'a>(self, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Format::Gzip => Box::new(flate2::read::GzDecoder::new(packed)),
            Format::Xz => Box::new(lzma_rust2::XzReader::new(BufReader::new(packed), false)),
            Format::Zstd => Box::new(zstd::stream::read::Decoder::new(packed)?.single_frame()),
            Format::Lz4Legacy => Box::new(Lz4Legacy::new(packed)),
        })
    }
}

/// Blocks one after another, each with its packed length before it. It has no end of its own: what is too short for a
/// block's length and one byte ends it. <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md#legacy-frame>
struct Lz4Legacy<R> {
    packed: R,
    block: Vec<u8>,
    at: usize,
    is_begun: bool,
}

impl<R: Read> Lz4Legacy<R> {
    fn new(packed: R) -> Self {
        Lz4Legacy { packed, block: Vec::new(), at: 0, is_begun: false }
    }

    /// The next block; none at the end.
    fn advance(&mut self) -> io::Result<()> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if !self.is_begun {
            self.packed.read_exact(&mut [0; 4])?;
            self.is_begun = true;
        }
        (self.at, self.block) = (0, Vec::new());
        let (mut length, mut packed) = (Vec::new(), Vec::new());
        self.packed.by_ref().take(4).read_to_end(&mut length)?;
        let Some(length) = half(&length, 0) else { return Ok(()) };
        self.packed.by_ref().take(length.into()).read_to_end(&mut packed)?;
        if packed.is_empty() {
            // A kernel's build adds the whole length.
            return Ok(());
        }
        if packed.len() != length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut block = vec![0; LZ4_BLOCK_BYTES];
        let bytes =
            lz4_flex::block::decompress_into(&packed, &mut block).map_err(|fault| invalid(fault.to_string()))?;
        block.truncate(bytes);
        self.block = block;
        Ok(())
    }
}

impl<R: Read> Read for Lz4Legacy<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.advance()?;
        }
        let bytes = into.len().min(self.block.len() - self.at);
        into[..bytes].copy_from_slice(&self.block[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}

/// All of what is in `packed`, which is `what`.
pub(crate) fn whole(format: Format, packed: &[u8], what: &str) -> Result<Vec<u8>, GuestImageError> {
    let mut bytes = Vec::new();
    let read = format.reader(packed).and_then(|reader| reader.take(GUEST_PART_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > GUEST_PART_BYTES_MAX => {
            Err(GuestImageError::broken(format!("{what}: more than {GUEST_PART_BYTES_MAX} bytes when unpacked")))
        }
        Ok(_) => Ok(bytes),
        Err(fault) => Err(GuestImageError::broken(format!("{what}: cannot be unpacked: {fault}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn lz4(blocks: &[&[u8]]) -> Vec<u8> {
        let mut bytes = LZ4_MAGIC.to_vec();
        for block in blocks {
            let packed = lz4_flex::block::compress(block);
            bytes.extend((packed.len() as u32).to_le_bytes());
            bytes.extend(packed);
        }
        bytes
    }

    #[test]
    fn blocks_of_lz4_follow_each_other() {
        let long = vec![7; LZ4_BLOCK_BYTES];
        let packed = lz4(&[&long, b"end"]);
        let unpacked = whole(Format::Lz4Legacy, &packed, "x").unwrap();
        assert_eq!((unpacked.len(), &unpacked[LZ4_BLOCK_BYTES..]), (LZ4_BLOCK_BYTES + 3, &b"end"[..]));
        assert!(whole(Format::Lz4Legacy, &packed[..packed.len() - 1], "x").is_err());
        let mut bomb = LZ4_MAGIC.to_vec();
        bomb.extend([255; 40]);
        assert!(whole(Format::Lz4Legacy, &bomb, "x").is_err());
    }

    #[test]
    fn what_follows_the_first_stream_is_left() {
        let packed = [
            (Format::Gzip, gzip(b"abc")),
            (Format::Zstd, zstd::encode_all(&b"abc"[..], 1).unwrap()),
            (Format::Lz4Legacy, lz4(&[b"abc"])),
        ];
        for (format, mut bytes) in packed {
            bytes.extend([3, 0, 0, 0]);
            assert_eq!(Format::of(&bytes), Some(format));
            assert_eq!(whole(format, &bytes, "x").unwrap(), b"abc");
        }
    }

    /// `printf abc | xz --check=crc32 --x86 --lzma2=dict=4KiB`, and the length as the kernel's build adds it.
    #[test]
    fn xz_with_the_filter_that_kernels_have() {
        let packed = b"\xfd\x37\x7a\x58\x5a\x00\x00\x01\x69\x22\xde\x36\x02\x01\x04\x00\x21\x01\x00\x00\xda\x33\xad\x03\x01\x00\x02\x61\x62\x63\x00\x00\xc2\x41\x24\x35\x00\x01\x17\x03\x07\x60\x0c\xbc\x90\x42\x99\x0d\x01\x00\x00\x00\x00\x01\x59\x5a\x03\x00\x00\x00";
        assert_eq!(whole(Format::Xz, packed, "x").unwrap(), b"abc");
    }

    #[test]
    fn what_is_cut_off_or_broken_is_an_error() {
        let packed = gzip(&[7; 100_000]);
        let fault = whole(Format::Gzip, &packed[..packed.len() / 2], "module `x`").unwrap_err();
        assert!(fault.to_string().starts_with("module `x`: cannot be unpacked"), "{fault}");
        assert_eq!(Format::of(b"\x7fELF"), None);
    }
}
