//! The bytes of a definition, as the store keeps it: `docs/formats/views.md`.

use millrace_model::{MatchOp, Matcher, TenantId, read_varint, write_varint};

use crate::aggregate::Aggregate;
use crate::definition::{Comparison, Grouping, Origin, ValueFilter, ViewDefinition};

/// Changed with every change of what is derived from the same samples: all buckets are then derived anew.
const SEMANTICS: u8 = 1;

/// What a view's buckets depend on.
pub(crate) fn encode_content(view: &ViewDefinition) -> Vec<u8> {
    let mut out = vec![SEMANTICS, view.parts().0];
    put_text(&mut out, view.tenant.as_str());
    put_matchers(&mut out, &view.matchers);
    put_grouping(&mut out, &view.grouping);
    out.extend_from_slice(&view.width_ms.to_le_bytes());
    put_filter(&mut out, view.filter);
    put_text(&mut out, view.distinct.as_deref().unwrap_or_default());
    out
}

/// Appends a definition.
pub fn encode_definition(out: &mut Vec<u8>, view: &ViewDefinition) {
    put_text(out, view.tenant.as_str());
    put_text(out, &view.name);
    put_text(out, &view.selector);
    put_matchers(out, &view.matchers);
    put_grouping(out, &view.grouping);
    out.extend_from_slice(&view.width_ms.to_le_bytes());
    write_varint(out, view.aggregates.len() as u64);
    for aggregate in &view.aggregates {
        put_text(out, aggregate.as_str());
    }
    write_varint(out, view.quantiles.len() as u64);
    for quantile in &view.quantiles {
        out.extend_from_slice(&quantile.to_le_bytes());
    }
    put_text(out, view.distinct.as_deref().unwrap_or_default());
    put_filter(out, view.filter);
    out.extend_from_slice(&view.retention_ms.unwrap_or(0).to_le_bytes());
    out.push(match view.origin {
        Origin::Api => 0,
        Origin::File => 1,
    });
}

/// Reads what [`encode_definition`] wrote, at `*pos`. `None` if the bytes are something else.
#[must_use]
pub fn decode_definition(bytes: &[u8], pos: &mut usize) -> Option<ViewDefinition> {
    let mut read = Reader { bytes, pos };
    Some(ViewDefinition {
        tenant: read.text()?.parse::<TenantId>().ok()?,
        name: read.text()?.to_owned(),
        selector: read.text()?.to_owned(),
        matchers: read.list(Reader::matcher)?,
        grouping: read.grouping()?,
        width_ms: Some(read.i64()?).filter(|&width| width > 0)?,
        aggregates: read.list(|r| Aggregate::from_word(r.text()?))?,
        quantiles: read.list(|r| r.i64().map(|bits| f64::from_bits(bits.cast_unsigned())))?,
        distinct: Some(read.text()?.to_owned()).filter(|text| !text.is_empty()),
        filter: read.filter()?,
        retention_ms: Some(read.i64()?).filter(|&age| age > 0),
        origin: match read.byte()? {
            0 => Origin::Api,
            1 => Origin::File,
            _ => return None,
        },
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_matchers(out: &mut Vec<u8>, matchers: &[Matcher]) {
    write_varint(out, matchers.len() as u64);
    for matcher in matchers {
        out.push(matcher.op().code());
        put_text(out, matcher.name());
        put_text(out, matcher.value());
    }
}

fn put_grouping(out: &mut Vec<u8>, grouping: &Grouping) {
    let (kind, names) = match grouping {
        Grouping::By(names) => (0, names),
        Grouping::Without(names) => (1, names),
    };
    out.push(kind);
    write_varint(out, names.len() as u64);
    names.iter().for_each(|name| put_text(out, name));
}

fn put_filter(out: &mut Vec<u8>, filter: Option<ValueFilter>) {
    match filter {
        None => out.push(0),
        Some(filter) => {
            let at = Comparison::ALL.iter().position(|c| *c == filter.comparison);
            // Counted from 1: 0 stands for none.
            out.push(at.map_or(0, |at| at as u8 + 1));
            out.extend_from_slice(&filter.value.to_le_bytes());
        }
    }
}

struct Reader<'a, 'p> {
    bytes: &'a [u8],
    pos: &'p mut usize,
}

impl<'a> Reader<'a, '_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(*self.pos)?;
        *self.pos += 1;
        Some(byte)
    }

    fn i64(&mut self) -> Option<i64> {
        let bytes = self.bytes.get(*self.pos..)?.first_chunk::<8>()?;
        *self.pos += 8;
        Some(i64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(read_varint(self.bytes, self.pos)?).ok()?;
        let end = self.pos.checked_add(len)?;
        let text = self.bytes.get(*self.pos..end)?;
        *self.pos = end;
        std::str::from_utf8(text).ok()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = read_varint(self.bytes, self.pos)?;
        // Each takes a byte at least.
        let left = (self.bytes.len() - *self.pos) as u64;
        (count <= left).then_some(())?;
        (0..count).map(|_| item(self)).collect()
    }

    fn matcher(&mut self) -> Option<Matcher> {
        let op = MatchOp::from_code(self.byte()?)?;
        let name = self.text()?.to_owned();
        Matcher::new(name, op, self.text()?.to_owned()).ok()
    }

    fn grouping(&mut self) -> Option<Grouping> {
        let kind = self.byte()?;
        let names = self.list(|r| r.text().map(str::to_owned))?;
        match kind {
            0 => Some(Grouping::By(names)),
            1 => Some(Grouping::Without(names)),
            _ => None,
        }
    }

    fn filter(&mut self) -> Option<Option<ValueFilter>> {
        let Some(at) = usize::from(self.byte()?).checked_sub(1) else {
            return Some(None);
        };
        Some(Some(ValueFilter {
            comparison: *Comparison::ALL.get(at)?,
            value: f64::from_bits(self.i64()?.cast_unsigned()),
        }))
    }
}
