//! `millrace import`: sends exported series to a running server.

use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use millrace_log::fs::{Fs as _, FsFile, OsFs};
use millrace_model::Labels;

use super::export::FormatArg;
use super::progress::Progress;
use crate::demo::push::Pusher;
use crate::export::lines::{CSV_COLUMNS, json_line, read_value};
use crate::failure::Failure;

/// Read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// A request has about so many bytes, which is below the server's bounds for bodies and samples.
const REQUEST_BYTES: usize = 1 << 20;

/// From where, to where.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// What `export` has written; standard input if not given
    pub file: Option<PathBuf>,
    /// The server. Samples older than its setting `ingest.max_age` are refused
    #[arg(long, default_value = "http://127.0.0.1:9009")]
    pub url: String,
    /// How it is written
    #[arg(long, value_enum, default_value_t = FormatArg::Json)]
    pub format: FormatArg,
}

/// Sends everything, in requests of a megabyte.
///
/// # Errors
///
/// A file that cannot be read, a line that is not what it should be, a server that refuses or does not
/// answer. What was sent before stays; sending it again changes nothing.
pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    let mut input = Input::open(args)?;
    let mut sending = Sending {
        pusher: Pusher::to(&args.url, "/api/v1/import")?,
        body: Vec::new(),
    };
    let mut csv = Csv::default();
    let mut progress = Progress::new("import", "bytes", input.total);
    let (mut rest, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    let mut number = 0;
    loop {
        let read = input.read(&mut piece)?;
        rest.extend_from_slice(&piece[..read]);
        if read == 0 && !rest.is_empty() && rest.last() != Some(&b'\n') {
            rest.push(b'\n');
        }
        let whole = match args.format {
            FormatArg::Json => rest
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1),
            FormatArg::Csv => whole_records(&rest),
        };
        match args.format {
            FormatArg::Json => {
                for line in rest[..whole].split_inclusive(|b| *b == b'\n') {
                    sending.add(line)?;
                }
            }
            FormatArg::Csv => csv.records(&rest[..whole], &mut number, &mut sending)?,
        }
        rest.drain(..whole);
        progress.set(input.done);
        if read == 0 {
            break;
        }
    }
    if !rest.is_empty() {
        return Err(bad(number + 1, "a quote that is not closed"));
    }
    csv.flush(&mut sending)?;
    sending.send()?;
    progress.finish();
    Ok(())
}

fn bad(record: u64, what: &str) -> Failure {
    Failure::Data(format!("record {record}: {what}"))
}

/// What is read, and how far.
struct Input {
    file: Option<Box<dyn FsFile>>,
    total: u64,
    done: u64,
}

impl Input {
    fn open(args: &ImportArgs) -> Result<Self, Failure> {
        let opened = args.file.as_ref().map(|path| {
            let file = OsFs.open(path)?;
            let len = file.len()?;
            io::Result::Ok((file, len))
        });
        let failed = |error| Failure::Data(format!("{:?}: {error}", args.file));
        let opened = opened.transpose().map_err(failed)?;
        let (file, total) = opened.map_or((None, 0), |(file, total)| (Some(file), total));
        Ok(Self {
            file,
            total,
            done: 0,
        })
    }

    fn read(&mut self, piece: &mut [u8]) -> Result<usize, Failure> {
        let read = match &self.file {
            Some(file) => file.read_at(piece, self.done),
            None => io::stdin().lock().read(piece),
        };
        let read = read.map_err(|source| Failure::System {
            what: "the input cannot be read",
            source,
        })?;
        self.done += read as u64;
        Ok(read)
    }
}

struct Sending {
    pusher: Pusher,
    body: Vec<u8>,
}

impl Sending {
    fn add(&mut self, line: &[u8]) -> Result<(), Failure> {
        if !self.body.is_empty() && self.body.len() + line.len() > REQUEST_BYTES {
            self.send()?;
        }
        self.body.extend_from_slice(line);
        Ok(())
    }

    fn send(&mut self) -> Result<(), Failure> {
        if self.body.is_empty() {
            return Ok(());
        }
        let body = std::mem::take(&mut self.body);
        let text = String::from_utf8(body)
            .map_err(|error| Failure::Data(format!("the input is not UTF-8: {error}")))?;
        self.pusher.send(&text)
    }
}

/// Bytes up to the last line feed that is not in quotes.
fn whole_records(bytes: &[u8]) -> usize {
    let (mut quoted, mut end) = (false, 0);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => end = at + 1,
            _ => {}
        }
    }
    end
}

/// Puts the samples of a series that follow one another into one line of JSON.
#[derive(Default)]
struct Csv {
    /// Names of the labels, once the header was read.
    names: Option<Vec<String>>,
    /// Those of the series, as they stand.
    values: Vec<String>,
    timestamps: Vec<i64>,
    samples: Vec<f64>,
}

impl Csv {
    fn records(
        &mut self,
        bytes: &[u8],
        number: &mut u64,
        out: &mut Sending,
    ) -> Result<(), Failure> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Failure::Data(format!("the input is not UTF-8: {error}")))?;
        let mut rest = text;
        while !rest.is_empty() {
            *number += 1;
            let fields;
            (fields, rest) = record(rest).ok_or_else(|| bad(*number, "quotes that do not fit"))?;
            match &self.names {
                None => self.header(fields, *number)?,
                Some(names) => {
                    let columns = names.len() + CSV_COLUMNS.len();
                    if fields.len() != columns {
                        return Err(bad(*number, &format!("it has not {columns} fields")));
                    }
                    self.sample(fields, *number, out)?;
                }
            }
        }
        Ok(())
    }

    fn header(&mut self, mut fields: Vec<String>, number: u64) -> Result<(), Failure> {
        if fields.len() < 2 || fields[..2] != CSV_COLUMNS {
            return Err(bad(
                number,
                "the header does not begin with timestamp_ms,value",
            ));
        }
        self.names = Some(fields.split_off(2));
        Ok(())
    }

    fn sample(
        &mut self,
        mut fields: Vec<String>,
        number: u64,
        out: &mut Sending,
    ) -> Result<(), Failure> {
        let values = fields.split_off(2);
        let timestamp = fields[0].parse();
        let timestamp = timestamp.map_err(|_| bad(number, "the timestamp is no whole number"))?;
        let value = read_value(&fields[1]).ok_or_else(|| bad(number, "the value is no number"))?;
        if values != self.values || self.samples.len() >= crate::export::SAMPLES_PER_LINE {
            self.flush(out)?;
            self.values = values;
        }
        self.timestamps.push(timestamp);
        self.samples.push(value);
        Ok(())
    }

    fn flush(&mut self, out: &mut Sending) -> Result<(), Failure> {
        if self.samples.is_empty() {
            return Ok(());
        }
        let names = self.names.iter().flatten();
        let pairs = names
            .zip(&self.values)
            .filter(|(_, value)| !value.is_empty());
        let labels = Labels::from_pairs(pairs.map(|(name, value)| (name.as_str(), value.as_str())))
            .map_err(|error| Failure::Data(format!("{:?}: {error}", self.values)))?;
        let mut line = Vec::new();
        json_line(&labels, &self.timestamps, &self.samples, &mut line);
        self.timestamps.clear();
        self.samples.clear();
        out.add(&line)
    }
}

/// The fields of the first record, and what is behind it.
fn record(text: &str) -> Option<(Vec<String>, &str)> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let end = quoted.find('"')?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            rest = quoted;
        } else {
            let end = rest.find([',', '\n'])?;
            field.push_str(rest[..end].trim_end_matches('\r'));
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                let rest = rest.strip_prefix('\r').unwrap_or(rest);
                return Some((fields, rest.strip_prefix('\n')?));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_no_quote_is_open() {
        let text = "1,2,\"a\n\"\"b\"\"\"\r\n3,4,\n5";
        assert_eq!(whole_records(text.as_bytes()), text.len() - 1);
        let (fields, rest) = record(text).unwrap();
        assert_eq!(fields, ["1", "2", "a\n\"b\""]);
        let (fields, rest) = record(rest).unwrap();
        assert_eq!(fields, ["3", "4", ""]);
        assert_eq!((rest, record(rest)), ("5", None));
        assert_eq!(record("\"a\"b\n"), None);
    }
}
