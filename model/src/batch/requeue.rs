//! Putting a batch into a queue again.

use super::decode::{split_header, tenant_end};
use super::{
    Batch, BatchError, FLAG_ORIGINAL_POSITION, HEADER_BYTES, MAGIC, MAX_BODY_BYTES,
    OriginalPosition,
};

/// Whether the batch says that it was queued before. Looks at the header alone and verifies nothing.
#[must_use]
pub fn is_requeued(bytes: &[u8]) -> bool {
    let header = bytes.get(..HEADER_BYTES);
    header.is_some_and(|h| h[..4] == MAGIC && h[5] & FLAG_ORIGINAL_POSITION != 0)
}

/// The batch with the position at which it was queued first. One that carries a position already
/// keeps that one: it is older.
///
/// # Errors
///
/// See [`BatchError`]; a batch that would outgrow [`MAX_BODY_BYTES`] is [`BatchError::Unsupported`].
pub fn requeue(bytes: &[u8], original: OriginalPosition) -> Result<Vec<u8>, BatchError> {
    let batch = Batch::decode(bytes)?;
    if batch.original_position().is_some() {
        return Ok(bytes.to_vec());
    }
    let (header, body) = split_header(bytes)?;
    let (before, behind) = body.split_at(tenant_end(body)?);
    let mut out = Vec::with_capacity(bytes.len() + 28);
    out.extend_from_slice(header);
    out.extend_from_slice(before);
    out.extend_from_slice(&original.queue.0.to_le_bytes());
    out.extend_from_slice(&original.partition.0.to_le_bytes());
    out.extend_from_slice(&original.offset.0.to_le_bytes());
    out.extend_from_slice(behind);
    let body_len = out.len() - HEADER_BYTES;
    let stored_len = u32::try_from(body_len)
        .ok()
        .filter(|_| body_len <= MAX_BODY_BYTES);
    let stored_len = stored_len.ok_or(BatchError::Unsupported {
        what: "body length",
        got: body_len as u64,
    })?;
    out[5] |= FLAG_ORIGINAL_POSITION;
    out[8..12].copy_from_slice(&stored_len.to_le_bytes());
    let body_crc = crc32c::crc32c(&out[HEADER_BYTES..]);
    out[20..24].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&out[..24]);
    out[24..28].copy_from_slice(&header_crc.to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{FloatSectionWriter, encode_batch};
    use crate::{Labels, Offset, PartitionId, QueueId, Sample, SeriesHasher, TenantId};

    fn position(offset: u64) -> OriginalPosition {
        OriginalPosition {
            queue: QueueId(7),
            partition: PartitionId(3),
            offset: Offset(offset),
        }
    }

    #[test]
    fn a_requeued_batch_is_the_one_that_would_have_been_written_with_its_position() {
        let tenant: TenantId = "acme".parse().unwrap();
        let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
        let mut writer = FloatSectionWriter::new();
        let id = SeriesHasher::new(&tenant).id(&labels);
        writer.push(id, labels.canonical(), &[Sample::new(1, 2.5)]);
        let section = writer.finish();
        let plain = encode_batch(&tenant, None, &section);
        let expect = encode_batch(&tenant, Some(position(41)), &section);
        assert!(!is_requeued(&plain) && is_requeued(&expect));
        assert_eq!(requeue(&plain, position(41)).unwrap(), expect);
        assert_eq!(
            requeue(&expect, position(99)).unwrap(),
            expect,
            "the first one stays"
        );
        for cut in 0..plain.len() {
            assert!(requeue(&plain[..cut], position(1)).is_err(), "{cut}");
        }
        assert!(!is_requeued(
            b"no batch at all, but long enough to have a header"
        ));
    }
}
