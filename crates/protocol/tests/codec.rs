//! Properties of the codec: frames survive any cutting, and nothing that a stranger sends does more than fail.

use loopd_agent_loop::{Command, Input};
use loopd_domain::content::ContentBlock;
use loopd_domain::event::Outcome;
use loopd_domain::limits::FRAME_BYTES_MAX;
use loopd_domain::{Epoch, EventId, Timestamp};
use loopd_protocol::codec::{Decoder, FrameError, encode};
use loopd_protocol::{CallResult, FromCell, ToCell};
use proptest::collection::vec;
use proptest::prelude::*;

fn id() -> impl Strategy<Value = EventId> {
    "sevt_[0-9A-Z]{1,26}".prop_map(|text| EventId::parse("id", &text).expect("an id"))
}

fn result() -> impl Strategy<Value = CallResult> {
    let outcome = prop_oneof![Just(Outcome::Completed), Just(Outcome::TimedOut), Just(Outcome::Interrupted)];
    (id(), vec(".{0,80}", 0..3), any::<bool>(), outcome, any::<u64>()).prop_map(
        |(id, texts, is_error, outcome, duration_ms)| {
            let content = texts.into_iter().map(ContentBlock::text).collect();
            CallResult { id, content, is_error, outcome, duration_ms }
        },
    )
}

fn frame() -> impl Strategy<Value = FromCell> {
    let command = prop_oneof![
        (any::<u32>(), vec(id(), 0..3)).prop_map(|(step, take)| Command::CallModel { step, take, repair: None }),
        (id(), ".{0,40}").prop_map(|(id, message)| Command::Settle { id, outcome: Outcome::NotRun, message }),
    ];
    prop_oneof![
        (any::<u32>(), vec(id(), 0..3)).prop_map(|(version, calls)| FromCell::Hello { version, calls }),
        (any::<u64>(), vec(result(), 0..4), vec(command, 0..4))
            .prop_map(|(epoch, results, commands)| FromCell::Batch { epoch: Epoch(epoch), results, commands }),
        (id(), ".{0,200}").prop_map(|(id, text)| FromCell::Output { id, text }),
        ".{0,200}".prop_map(|message| FromCell::Log { message }),
    ]
}

/// Everything that a decoder gives for these pieces, up to the first error.
fn decode(pieces: &[&[u8]]) -> Result<Vec<FromCell>, FrameError> {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_survive_any_cutting(frames in vec(frame(), 1..5), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| encode(frame, &mut bytes).expect("small"));
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        prop_assert_eq!(decode(&pieces).expect("whole frames"), frames);
    }

    #[test]
    fn half_a_frame_is_none(frame in frame(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes).expect("small");
        prop_assert_eq!(decode(&[&bytes[..cut.index(bytes.len())]]).expect("nothing yet"), Vec::new());
    }

    #[test]
    fn garbage_is_an_error_or_nothing(bytes in vec(any::<u8>(), 0..600)) {
        // What decodes by luck is a frame that encodes; nothing else comes out, and nothing panics.
        for frame in decode(&[&bytes]).unwrap_or_default() {
            encode(&frame, &mut Vec::new()).expect("a frame");
        }
    }

    #[test]
    fn a_spoiled_payload_does_not_panic(frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes).expect("small");
        let at = 4 + at.index(bytes.len() - 4);
        let changed = bytes[at] != byte;
        bytes[at] = byte;
        if let (Ok(frames), false) = (decode(&[&bytes]), changed) {
            prop_assert_eq!(frames, vec![frame]);
        }
    }

    #[test]
    fn a_length_over_the_maximum_is_refused_at_once(over in FRAME_BYTES_MAX as u32 + 1..) {
        let refused = matches!(decode(&[&over.to_le_bytes()]), Err(FrameError::TooLarge { bytes }) if bytes == over as usize);
        prop_assert!(refused);
    }
}

#[test]
fn every_single_cut_of_a_stream() {
    let input = Input::Queued { id: EventId::parse("id", "sevt_1").expect("an id") };
    let frames = [ToCell::Shutdown, ToCell::Input { now: Timestamp(1), input }, ToCell::Shutdown];
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| encode(frame, &mut bytes).expect("small"));
    for cut in 0..=bytes.len() {
        let (mut decoder, mut got) = (Decoder::default(), Vec::new());
        for piece in [&bytes[..cut], &bytes[cut..]] {
            decoder.push(piece);
            while let Some(frame) = decoder.next::<ToCell>().expect("whole frames") {
                got.push(frame);
            }
        }
        assert_eq!(got, frames, "cut at {cut}");
    }
}

#[test]
fn a_frame_that_is_too_large_leaves_no_trace() {
    let mut bytes = Vec::new();
    encode(&FromCell::Hello { version: 1, calls: Vec::new() }, &mut bytes).expect("small");
    let before = bytes.clone();
    let fault = encode(&FromCell::Log { message: "x".repeat(FRAME_BYTES_MAX) }, &mut bytes);
    assert!(matches!(fault, Err(FrameError::TooLarge { .. })), "{fault:?}");
    assert_eq!(bytes, before);
}
