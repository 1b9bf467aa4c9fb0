//! Rows of Parquet files as JSON values: nested lists and structs become arrays and objects.

use super::Take;
use super::place::Place;
use crate::budget::{self, memory};
use crate::error::{Error, Result};
use crate::files::{self, Location};
use crate::model::guard::guarded;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::column::page::Page;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Decimals of up to this many digits are numbers: a float holds them exactly enough. Longer ones are texts.
const NUMBER_DIGITS: i32 = 15;
/// Days from 1970 of the years 1 to 9999, which is what times are written for.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
const DAY_MILLIS: i64 = 86_400_000;
/// That headers are read for, at most; those of a sound file take seconds.
const LONGEST: Duration = Duration::from_secs(300);

/// Hands the rows to `take`, until it has enough; says whether it wants more.
///
/// # Errors
/// A file that cannot be read or is no Parquet, a value that JSON cannot hold (named by row and field), and what `take`
/// refuses.
pub(super) fn read(path: &Location, take: &mut Take) -> Result<bool> {
    let file = files::open(path)?.into_std();
    let broken = |e: String| {
        let e = e.strip_prefix("Parquet error: ").unwrap_or(&e);
        Error::file(format!("{} cannot be read as Parquet: {e}", path.display())).hint("was the download complete?")
    };
    let label: Rc<str> = path.display().to_string().into();
    let reader = headers(move || SerializedFileReader::new(file))?.map_err(broken)?;
    check_types(path, &reader)?;
    check_room(&reader)?;
    let reader = headers(move || check_dictionaries(&reader).map(|()| reader))?.map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema();
    let mut rows = sound(|| reader.get_row_iter(None)).map_err(broken)?;
    for number in 1.. {
        let Some(row) = sound(|| rows.next().transpose()).map_err(broken)? else { break };
        let place = Place::row(&label, number);
        let fields = object(&row, Some(schema), true).map_err(|(field, what)| {
            Error::file(format!("{place}: `{field}` {what}"))
                .hint("leave the column out when you write the file, or convert it to text")
        })?;
        if !take(place, Value::Object(fields))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The library asserts what a sound file holds: a broken one must be an error here, whichever way it is found.
fn sound<T, E: ToString>(read: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<T, String> {
    match guarded(read) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("its contents contradict each other".into()),
    }
}

/// What reads headers: the library passes over as much as one claims to have, and looks at no clock.
///
/// # Errors
/// Interrupted.
fn headers<T: Send + 'static>(
    read: impl FnOnce() -> parquet::errors::Result<T> + Send + 'static,
) -> Result<std::result::Result<T, String>> {
    let found = budget::apart(LONGEST, move || sound(read))?;
    Ok(found.unwrap_or_else(|| Err("its headers claim more than can be passed over".into())))
}

fn check_types(path: &Path, reader: &dyn FileReader) -> Result<()> {
    for column in reader.metadata().file_metadata().schema_descr().columns() {
        if column.converted_type() == ConvertedType::INTERVAL {
            let what = format!("{}: the column `{}` holds intervals", path.display(), column.path().string());
            return Err(Error::file(format!("{what}, which cannot be read"))
                .hint("leave the column out when you write the file, or convert it to text"));
        }
    }
    Ok(())
}

/// What is decoded at once: pages, and of a column of lists as much as one row may hold of its group.
fn check_room(reader: &dyn FileReader) -> Result<()> {
    for columns in reader.metadata().row_groups().iter().map(|group| group.columns()) {
        let pages = columns.iter().map(|column| column.uncompressed_size().max(0) as u64).sum::<u64>();
        let lists = columns.iter().filter(|column| column.column_descr().max_rep_level() > 0);
        let values = lists.map(|column| column.num_values().max(0) as u64).sum::<u64>();
        memory::room(pages.saturating_add(values.saturating_mul(size_of::<Field>() as u64)))?;
    }
    Ok(())
}

fn check_dictionaries(reader: &dyn FileReader) -> parquet::errors::Result<()> {
    for (group, about) in reader.metadata().row_groups().iter().enumerate() {
        (0..about.num_columns()).try_for_each(|column| check_dictionary(reader, group, column))?;
    }
    Ok(())
}

/// The library makes room for as many values as a dictionary says it has, before it looks at the first.
fn check_dictionary(reader: &dyn FileReader, group: usize, column: usize) -> parquet::errors::Result<()> {
    let group = reader.get_row_group(group)?;
    let about = group.metadata().column(column).column_descr();
    let least = match about.physical_type() {
        Physical::BOOLEAN => 1,
        // Of a text the number of its bytes.
        Physical::INT32 | Physical::FLOAT | Physical::BYTE_ARRAY => 4,
        Physical::INT64 | Physical::DOUBLE => 8,
        Physical::INT96 => 12,
        Physical::FIXED_LEN_BYTE_ARRAY => about.type_length().max(1) as u64,
    };
    let mut pages = group.get_column_page_reader(column)?;
    while let Some(page) = pages.peek_next_page()? {
        if !page.is_dict {
            pages.skip_next_page()?;
        } else if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()?
            && u64::from(num_values) * least > buf.len() as u64
        {
            let (column, bytes) = (about.path().string(), buf.len());
            let what = format!("the dictionary of `{column}` says it has {num_values} values, in {bytes} bytes");
            return Err(ParquetError::General(what));
        }
    }
    Ok(())
}

/// A field's name and what is wrong with it.
type Wrong = (String, String);

/// A struct; `schema` is its type. In a Parquet file every struct has all fields of its type. What is null within one
/// is left out unless `nulls` is set, as it is in JSON: a chat template asks whether a message has tool calls.
fn object(row: &Row, schema: Option<&Type>, nulls: bool) -> std::result::Result<Map<String, Value>, Wrong> {
    let types = schema.filter(|schema| schema.is_group()).map(Type::get_fields);
    let mut fields = Map::new();
    for (i, (name, field)) in row.get_column_iter().enumerate() {
        if *field == Field::Null && !nulls {
            continue;
        }
        let kind = types.and_then(|types| types.get(i)).map(AsRef::as_ref);
        let value = value(field, kind).map_err(|(inner, what)| (join(name, &inner), what))?;
        fields.insert(name.clone(), value);
    }
    Ok(fields)
}

fn join(name: &str, inner: &str) -> String {
    if inner.is_empty() || inner.starts_with('[') { format!("{name}{inner}") } else { format!("{name}.{inner}") }
}

fn value(field: &Field, kind: Option<&Type>) -> std::result::Result<Value, Wrong> {
    let wrong = |what: &str| (String::new(), what.to_string());
    let time = |days: i64, field: &Field| match DAYS.contains(&days) {
        true => Ok(Value::from(field.to_string())),
        false => Err(wrong("is a time outside the years 1 to 9999")),
    };
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => match kind.and_then(nanoseconds) {
            Some(Nanoseconds::SinceEpoch) => return value(&Field::TimestampMicros(x.div_euclid(1000)), None),
            Some(Nanoseconds::SinceMidnight) => return value(&Field::TimeMicros(x.div_euclid(1000)), None),
            None => (*x).into(),
        },
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        // What is no number in JSON (NaN, infinity) is null.
        Field::Float16(x) => f64::from(*x).into(),
        Field::Float(x) => f64::from(*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Decimal(x) => decimal(&field.to_string(), x.precision()),
        Field::Str(x) => x.clone().into(),
        Field::Bytes(x) => match str::from_utf8(x.data()) {
            Ok(text) => text.into(),
            Err(_) => return Err(wrong("holds bytes that are no text")),
        },
        Field::Date(x) => time((*x).into(), field)?,
        Field::TimeMillis(_) | Field::TimeMicros(_) => field.to_string().into(),
        Field::TimestampMillis(x) => time(x.div_euclid(DAY_MILLIS), field)?,
        Field::TimestampMicros(x) => time(x.div_euclid(1000 * DAY_MILLIS), field)?,
        Field::Group(row) => object(row, kind, false)?.into(),
        Field::ListInternal(list) => {
            let inner = kind.and_then(element);
            let one = |(i, item): (usize, &Field)| {
                value(item, inner).map_err(|(rest, what)| (join(&format!("[{i}]"), &rest), what))
            };
            list.elements().iter().enumerate().map(one).collect::<std::result::Result<Vec<_>, _>>()?.into()
        }
        Field::MapInternal(map) => {
            let mut fields = Map::new();
            for (key, item) in map.entries() {
                let key = match value(key, None)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                let item = value(item, None).map_err(|(rest, what)| (join(&key, &rest), what))?;
                fields.insert(key, item);
            }
            fields.into()
        }
    })
}

enum Nanoseconds {
    SinceEpoch,
    SinceMidnight,
}

/// The library gives these as plain numbers: the older annotations it goes by have no name for them.
fn nanoseconds(kind: &Type) -> Option<Nanoseconds> {
    match kind.get_basic_info().logical_type_ref()? {
        LogicalType::Timestamp(time) if time.unit == TimeUnit::NANOS => Some(Nanoseconds::SinceEpoch),
        LogicalType::Time(time) if time.unit == TimeUnit::NANOS => Some(Nanoseconds::SinceMidnight),
        _ => None,
    }
}

/// The type of a list's elements: below the repeated group that wraps them, except in files of old writers.
fn element(list: &Type) -> Option<&Type> {
    let repeated = if list.is_group() { list.get_fields().first()? } else { return None };
    match repeated.is_group() && repeated.get_fields().len() == 1 {
        true => repeated.get_fields().first().map(AsRef::as_ref),
        false => Some(repeated),
    }
}

fn decimal(text: &str, precision: i32) -> Value {
    let text = text.trim_end_matches('.');
    match text.parse::<f64>() {
        Ok(number) if precision <= NUMBER_DIGITS => number.into(),
        _ => text.into(),
    }
}
