//! Several questions in one statement. What a read costs is its turns with the database far more than its rows, and one
//! statement sees one moment: it needs no transaction around it.

use super::{
    row::{Row, Value},
    tx::Tx,
};
use crate::store::StoreError;

/// An expression of an answer's row, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Int(&'static str),
    Text(&'static str),
    Bytes(&'static str),
}

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) columns: &'static [Column],
    /// What stands after FROM. What is asked about comes first and is joined by CROSS JOIN: SQLite keeps to that order, and for
    /// all but the first question it would otherwise walk the other table.
    pub(super) from: &'static str,
    /// What its rows are ordered by. They are put in order here: a database that sorts whole documents is slower.
    pub(super) order: &'static [Column],
}

/// Numbers, texts and bytes of a row, each in the question's order.
type Sorted = (Vec<&'static str>, Vec<&'static str>, Vec<&'static str>);

impl Question {
    fn all(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().chain(self.order)
    }

    fn sorted(&self) -> Sorted {
        let mut sorted = Sorted::default();
        for column in self.all() {
            match column {
                Column::Int(sql) => sorted.0.push(sql),
                Column::Text(sql) => sorted.1.push(sql),
                Column::Bytes(sql) => sorted.2.push(sql),
            }
        }
        sorted
    }
}

/// The statement: every question gives rows of the same shape, which begin with its number.
pub(super) fn statement(with: &str, questions: &[Question], no_bytes: &'static str) -> (String, [usize; 3]) {
    let sorted: Vec<Sorted> = questions.iter().map(Question::sorted).collect();
    let widest = |of: fn(&Sorted) -> usize| sorted.iter().map(of).max().unwrap_or(0);
    let widths = [widest(|s| s.0.len()), widest(|s| s.1.len()), widest(|s| s.2.len())];
    // The first SELECT of a UNION gives each column its type.
    let absent = ["CAST(NULL AS BIGINT)", "CAST(NULL AS TEXT)", no_bytes];
    let selects = questions.iter().zip(&sorted).enumerate().map(|(number, (question, sorted))| {
        let number = format!("{number} AS question");
        let mut columns = vec![number.as_str()];
        for ((own, width), absent) in [&sorted.0, &sorted.1, &sorted.2].into_iter().zip(widths).zip(absent) {
            columns.extend(own.iter().copied().chain(std::iter::repeat(absent)).take(width));
        }
        format!("SELECT {} FROM {}", columns.join(", "), question.from)
    });
    let selects: Vec<String> = selects.collect();
    (format!("{with} {}", selects.join(" UNION ALL ")), widths)
}

/// Puts the cells of one row back into the question's order: its columns, and what it is ordered by.
fn unsorted(question: &Question, mut cells: Vec<Value>, widths: [usize; 3]) -> (Vec<Value>, Vec<Value>) {
    let mut next = [0, widths[0], widths[0] + widths[1]];
    let own = question.all().map(|column| {
        let kind = match column {
            Column::Int(_) => 0,
            Column::Text(_) => 1,
            Column::Bytes(_) => 2,
        };
        let at = next[kind];
        next[kind] += 1;
        cells.get_mut(at).map_or(Value::Int(None), |cell| std::mem::replace(cell, Value::Int(None)))
    });
    let mut own: Vec<Value> = own.collect();
    let order = own.split_off(question.columns.len());
    (own, order)
}

/// Asks all of them at once; `with` is the statement's WITH clause, whose tables each may name. The rows of each question.
pub(super) async fn ask(
    tx: &mut Tx,
    with: &str,
    questions: &[Question],
    args: Vec<Value>,
) -> Result<Vec<Vec<Row>>, StoreError> {
    let (sql, widths) = statement(with, questions, tx.either("NULL", "CAST(NULL AS BYTEA)"));
    let mut answers: Vec<Vec<(Vec<Value>, Vec<Value>)>> = questions.iter().map(|_| Vec::new()).collect();
    for mut row in tx.rows(&sql, args).await? {
        let number = usize::try_from(row.int()?).unwrap_or(usize::MAX);
        if let (Some(question), Some(rows)) = (questions.get(number), answers.get_mut(number)) {
            rows.push(unsorted(question, row.rest(), widths));
        }
    }
    let in_order = |mut rows: Vec<(Vec<Value>, Vec<Value>)>| {
        rows.sort_by(|(_, one), (_, other)| one.cmp(other));
        rows.into_iter().map(|(cells, _)| Row::of(cells)).collect()
    };
    Ok(answers.into_iter().map(in_order).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTIONS: [Question; 2] = [
        Question {
            columns: &[Column::Text("a"), Column::Int("b"), Column::Text("c")],
            from: "t",
            order: &[Column::Text("a")],
        },
        Question { columns: &[Column::Bytes("d")], from: "u JOIN w ON w.x = u.x", order: &[Column::Int("e")] },
    ];

    #[test]
    fn every_question_gives_rows_of_the_same_shape() {
        let (sql, widths) = statement("WITH w AS (SELECT 1 AS x)", &QUESTIONS, "NULL");
        assert_eq!(widths, [1, 3, 1]);
        assert_eq!(
            sql,
            "WITH w AS (SELECT 1 AS x) SELECT 0 AS question, b, a, c, a, NULL FROM t UNION ALL \
             SELECT 1 AS question, e, CAST(NULL AS TEXT), CAST(NULL AS TEXT), CAST(NULL AS TEXT), d \
             FROM u JOIN w ON w.x = u.x"
        );
    }

    #[test]
    fn a_row_comes_back_in_the_order_of_its_question() {
        let text = |text: &str| Value::from(text);
        let cells = vec![Value::from(7_u32), text("one"), text("two"), text("one"), Value::Bytes(None)];
        let (own, order) = unsorted(&QUESTIONS[0], cells, [1, 3, 1]);
        assert_eq!(own, [text("one"), Value::from(7_u32), text("two")]);
        assert_eq!(order, [text("one")]);
        let cells = vec![Value::from(8_u32), Value::Text(None), Value::Text(None), Value::Text(None), vec![9].into()];
        assert_eq!(unsorted(&QUESTIONS[1], cells, [1, 3, 1]), (vec![vec![9].into()], vec![Value::from(8_u32)]));
    }
}
