//! Bytes cut into pieces, in a way that the bytes themselves decide: the same input is always cut the same.

/// Cuts at places that follow from the input. Empty pieces occur.
pub(crate) fn cut(bytes: &[u8]) -> Vec<&[u8]> {
    let mut state = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Mostly a few bytes, now and then many.
        let most = if state >> 60 == 0 { 4_096 } else { 9 };
        let (piece, left) = rest.split_at(((state >> 33) as usize % most).min(rest.len()));
        pieces.push(piece);
        rest = left;
    }
    pieces
}

/// Bytes one by one.
pub(crate) fn single(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(1).collect()
}

/// The input's first line, and what follows it.
pub(crate) fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}
