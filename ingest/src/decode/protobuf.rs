//! Walking over Protocol Buffers messages in place
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// Where bytes stopped being a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Position in the whole body.
    pub(crate) at: usize,
    pub(crate) what: &'static str,
}

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Varint(u64),
    Fixed64(u64),
    /// Start and end in the body.
    Bytes(usize, usize),
    Fixed32,
}

/// A cursor over one message. Positions are those of the whole body, so that errors name them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    body: &'a [u8],
    pub(crate) pos: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// The message at `[pos, end)` of `body`.
    pub(crate) fn new(body: &'a [u8], pos: usize, end: usize) -> Self {
        debug_assert!(pos <= end && end <= body.len());
        Self { body, pos, end }
    }

    /// Steps to the next field: its number and value; `None` at the end of the message.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value)>, Malformed> {
        if self.pos >= self.end {
            return Ok(None);
        }
        let at = self.pos;
        let tag = self.varint()?;
        let Ok(number) = u32::try_from(tag >> 3) else {
            return Err(Malformed {
                at,
                what: "field number",
            });
        };
        if number == 0 {
            return Err(Malformed {
                at,
                what: "field number 0",
            });
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let at = self.pos;
                let len = self.varint()?;
                if len > (self.end - self.pos) as u64 {
                    return Err(Malformed {
                        at,
                        what: "length beyond the end of its message",
                    });
                }
                let start = self.pos;
                self.pos += len as usize;
                Value::Bytes(start, self.pos)
            }
            5 => {
                self.array::<4>()?;
                Value::Fixed32
            }
            _ => {
                return Err(Malformed {
                    at,
                    what: "wire type",
                });
            }
        };
        Ok(Some((number, value)))
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        if let Some(&byte) = self.body[..self.end].get(self.pos)
            && byte < 0x80
        {
            self.pos += 1;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let at = self.pos;
        millrace_model::read_varint(&self.body[..self.end], &mut self.pos)
            .ok_or(Malformed { at, what: "varint" })
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.body[..self.end].get(self.pos..self.pos + N);
        let bytes = bytes.ok_or(Malformed {
            at: self.pos,
            what: "fixed-size value beyond the end of its message",
        })?;
        self.pos += N;
        Ok(bytes.try_into().expect("a slice of N bytes"))
    }
}
