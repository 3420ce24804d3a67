//! The forms in which instructions are written.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde::Serialize;

use super::Hashed;
use crate::instruction::Instruction;
use crate::prompt::render;

/// Form of the training file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    /// JSON Lines of [`Instruction`]: all that is known of each.
    #[default]
    Instruct,
    /// JSON Lines with the keys `id`, `instruction`, `input`, `output`.
    Alpaca,
    /// JSON Lines with the keys `id` and `messages`: one user turn, one assistant turn.
    Messages,
    /// Parquet: the rendered `prompt` and `response`, `id`, `task`, `source`, `lang`, and the whole record as JSON.
    Parquet,
}

impl Output {
    /// File extension.
    pub fn extension(self) -> &'static str {
        if self == Self::Parquet { "parquet" } else { "jsonl" }
    }

    /// One row as it waits in the spool: the line of a JSON Lines file.
    pub fn line(self, row: &Instruction) -> Vec<u8> {
        #[derive(Serialize)]
        struct Alpaca<'a> {
            id: &'a str,
            instruction: &'a str,
            input: &'a str,
            output: &'a str,
        }
        #[derive(Serialize)]
        struct Message<'a> {
            role: &'a str,
            content: &'a str,
        }
        #[derive(Serialize)]
        struct Conversation<'a> {
            id: &'a str,
            messages: [Message<'a>; 2],
        }
        // Serialising plain strings and numbers into memory cannot fail.
        match self {
            Self::Instruct | Self::Parquet => {
                let mut line = Vec::with_capacity(1024 + 2 * (row.input.len() + row.prompt.len() + row.output.len()));
                serde_json::to_writer(&mut line, row).map(|()| line)
            }
            Self::Alpaca => {
                let instruction = &question(row);
                serde_json::to_vec(&Alpaca { id: &row.id, instruction, input: &row.input, output: &row.output })
            }
            Self::Messages => {
                let content =
                    if row.input.is_empty() { question(row) } else { format!("{}\n{}", row.input, question(row)) };
                let user = Message { role: "user", content: &content };
                let assistant = Message { role: "assistant", content: &row.output };
                serde_json::to_vec(&Conversation { id: &row.id, messages: [user, assistant] })
            }
        }
        .unwrap_or_default()
    }
}

/// The question without the layout's markers: prompt, candidates and constraint.
fn question(row: &Instruction) -> String {
    let bare = Instruction { input: String::new(), description: String::new(), ..row.clone() };
    let prompt = render(&bare).prompt;
    let from =
        prompt.find(crate::prompt::INSTRUCTION_MARKER).map_or(0, |at| at + crate::prompt::INSTRUCTION_MARKER.len());
    let prompt = &prompt[from..];
    prompt.strip_suffix(crate::prompt::RESPONSE_MARKER).unwrap_or(prompt).trim().to_owned()
}

/// An open output file.
pub enum Sink {
    /// JSON Lines.
    Lines(BufWriter<Hashed>),
    /// Parquet, with the rows of the group being filled.
    Parquet(Box<Table>),
}

/// A Parquet file being written: columns of the row group that is being filled.
pub struct Table {
    writer: SerializedFileWriter<BufWriter<Hashed>>,
    columns: [Vec<ByteArray>; COLUMNS],
}

const COLUMNS: usize = 7;
const SCHEMA: &str = "message instructions {
    REQUIRED BINARY id (UTF8); REQUIRED BINARY task (UTF8); REQUIRED BINARY source (UTF8); REQUIRED BINARY lang (UTF8);
    REQUIRED BINARY prompt (UTF8); REQUIRED BINARY response (UTF8); REQUIRED BINARY record (UTF8);
}";

/// Rows of a Parquet row group.
const GROUP: usize = 16_384;

impl Sink {
    /// A sink of a form that writes to `file`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(file: BufWriter<Hashed>, output: Output) -> io::Result<Self> {
        if output != Output::Parquet {
            return Ok(Self::Lines(file));
        }
        let schema = parse_message_type(SCHEMA).map_err(io::Error::other)?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(io::Error::other)?;
        Ok(Self::Parquet(Box::new(Table { writer, columns: Default::default() })))
    }

    /// Writes one row, given as [`Output::line`] made it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn row(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Lines(file) => {
                file.write_all(line)?;
                file.write_all(b"\n")
            }
            Self::Parquet(table) => {
                let row: Instruction = serde_json::from_slice(line)?;
                let rendered = render(&row);
                let (id, lang) = (row.id, row.lang.name());
                let record = String::from_utf8_lossy(line).into_owned();
                let cells = [id, row.task, row.source, lang.to_owned(), rendered.prompt, rendered.response, record];
                for (column, cell) in table.columns.iter_mut().zip(cells) {
                    column.push(ByteArray::from(cell.into_bytes()));
                }
                if table.columns[0].len() == GROUP { table.flush() } else { Ok(()) }
            }
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> io::Result<BufWriter<Hashed>> {
        match self {
            Self::Lines(file) => Ok(file),
            Self::Parquet(mut table) => {
                table.flush()?;
                table.writer.into_inner().map_err(io::Error::other)
            }
        }
    }
}

impl Table {
    fn flush(&mut self) -> io::Result<()> {
        if self.columns[0].is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(io::Error::other)?;
        for column in &mut self.columns {
            if let Some(mut writer) = group.next_column().map_err(io::Error::other)? {
                writer.typed::<ByteArrayType>().write_batch(column, None, None).map_err(io::Error::other)?;
                writer.close().map_err(io::Error::other)?;
            }
            column.clear();
        }
        group.close().map_err(io::Error::other)?;
        Ok(())
    }
}
