// SPDX-License-Identifier: GPL-2.0

//! The records of a stream, one in each frame.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::{Encoder, Fields, Frame, FrameError, Magic};

/// Magic of a stream.
pub const STREAM: Magic = *b"mmopsrep";

/// The state of a replica: that after a round of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// A number that no other stream has.
    #[serde(with = "hex")]
    pub stream: u128,
    /// From 0 on.
    pub round: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} of stream {:032x}", self.round, self.stream)
    }
}

/// 128 bits are more than a number in JSON may have.
mod hex {
    use serde::{de::Error, Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// The first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub stream: u128,
    pub page_size: u32,
    /// Bytes in the file.
    pub size: u64,
    /// What the replica has to be before the first round; if that does not have all.
    pub base: Option<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Header(Header),
    /// A round begins, and the replica gets this size.
    Begin {
        round: u64,
        size: u64,
    },
    Data {
        offset: u64,
        bytes: &'a [u8],
    },
    Zero {
        offset: u64,
        length: u64,
    },
    /// The round is whole. It had so many records between the begin and this.
    End {
        round: u64,
        records: u64,
    },
    /// There are no more rounds.
    Finish {
        rounds: u64,
    },
}

const HEADER: u32 = 1;
const BEGIN: u32 = 2;
const DATA: u32 = 3;
const ZERO: u32 = 4;
const END: u32 = 5;
const FINISH: u32 = 6;

impl<'a> Record<'a> {
    /// Appends the frame of this to `out`.
    pub fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let mut two = |kind, first: u64, second: u64| {
            let parts = [first.to_le_bytes(), second.to_le_bytes()];
            encoder.frame(kind, &[&parts[0], &parts[1]], out);
        };
        match *self {
            Self::Header(header) => {
                let base = header.base.unwrap_or(Point {
                    stream: 0,
                    round: 0,
                });
                encoder.frame(
                    HEADER,
                    &[
                        &header.stream.to_le_bytes(),
                        &header.page_size.to_le_bytes(),
                        &u32::from(header.base.is_some()).to_le_bytes(),
                        &header.size.to_le_bytes(),
                        &base.stream.to_le_bytes(),
                        &base.round.to_le_bytes(),
                    ],
                    out,
                );
            }
            Self::Begin { round, size } => two(BEGIN, round, size),
            Self::Data { offset, bytes } => {
                encoder.frame(DATA, &[&offset.to_le_bytes(), bytes], out)
            }
            Self::Zero { offset, length } => two(ZERO, offset, length),
            Self::End { round, records } => two(END, round, records),
            Self::Finish { rounds } => encoder.frame(FINISH, &[&rounds.to_le_bytes()], out),
        }
    }

    /// The record of a frame.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, FrameError> {
        let mut fields = Fields(frame.payload);
        let record = match frame.kind {
            HEADER => {
                let stream = fields.u128()?;
                let page_size = fields.u32()?;
                let has_base = fields.u32()?;
                let size = fields.u64()?;
                let base = Point {
                    stream: fields.u128()?,
                    round: fields.u64()?,
                };
                Self::Header(Header {
                    stream,
                    page_size,
                    size,
                    base: match has_base {
                        0 => None,
                        1 => Some(base),
                        _ => return Err(FrameError::Bad("its header is not sound".into())),
                    },
                })
            }
            BEGIN => Self::Begin {
                round: fields.u64()?,
                size: fields.u64()?,
            },
            DATA => Self::Data {
                offset: fields.u64()?,
                bytes: fields.rest(),
            },
            ZERO => Self::Zero {
                offset: fields.u64()?,
                length: fields.u64()?,
            },
            END => Self::End {
                round: fields.u64()?,
                records: fields.u64()?,
            },
            FINISH => Self::Finish {
                rounds: fields.u64()?,
            },
            kind => {
                return Err(FrameError::Bad(format!(
                    "it has a frame of kind {kind}, which version 1 has not"
                )))
            }
        };
        fields.end()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Decoder;

    #[test]
    fn records_come_back() {
        let header = Header {
            stream: 1 << 100 | 7,
            page_size: 4096,
            size: 1 << 40,
            base: None,
        };
        let base = Point {
            stream: u128::MAX,
            round: 5,
        };
        let records = [
            Record::Header(header),
            Record::Header(Header {
                base: Some(base),
                ..header
            }),
            Record::Begin { round: 1, size: 2 },
            Record::Data {
                offset: 3,
                bytes: b"bytes",
            },
            Record::Zero {
                offset: 4,
                length: u64::MAX,
            },
            Record::End {
                round: 5,
                records: 6,
            },
            Record::Finish { rounds: 7 },
        ];
        let mut out = Vec::new();
        let mut encoder = Encoder::new(STREAM, &mut out);
        for record in &records {
            record.encode(&mut encoder, &mut out);
        }
        let mut decoder = Decoder::new(&out[..], STREAM, "a stream").unwrap();
        for record in &records {
            let frame = decoder.next().unwrap().unwrap();
            assert_eq!(Record::decode(&frame).unwrap(), *record);
        }
        assert_eq!(decoder.next().unwrap(), None);
    }

    #[test]
    fn payloads_have_the_length_of_their_kind() {
        for kind in 0..8 {
            for length in 0..80 {
                let payload = vec![0; length];
                let frame = Frame {
                    kind,
                    payload: &payload,
                };
                let is_right = match kind {
                    HEADER => length == 56,
                    BEGIN | ZERO | END => length == 16,
                    DATA => length >= 8,
                    FINISH => length == 8,
                    _ => false,
                };
                assert_eq!(Record::decode(&frame).is_ok(), is_right, "{kind} {length}");
            }
        }
    }
}
