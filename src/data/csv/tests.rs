//! Tests of the reader of tables.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::data::Targets;

fn load_text(text: &str, target: &str) -> Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("houses.csv");
    std::fs::write(&path, text).unwrap();
    load(&path, target)
}

fn data_error(text: &str) -> String {
    let error = load_text(text, "price").unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    error.to_string()
}

#[test]
fn the_target_column_is_taken_out_of_the_inputs() {
    let data = load_text("rooms, price ,area\n3,1.5,70\n4, -2e1 ,\"80\"\n", "price").unwrap();
    assert_eq!((data.name(), data.width()), ("houses", 2));
    assert_eq!(data.features(), [3.0, 70.0, 4.0, 80.0]);
    let values = vec![1.5, -20.0];
    assert_eq!(data.targets(), &Targets::Values { values, width: 1 });
}

#[test]
fn a_cell_that_is_no_finite_number_is_named() {
    for cell in ["large", "", "NaN", "inf", "1e39"] {
        let text = data_error(&format!("rooms,price\n1,2\n{cell},3\n"));
        assert!(
            text.contains(&format!("line 3, column 'rooms': '{cell}'")),
            "{text}"
        );
    }
}

#[test]
fn a_line_of_another_length_is_named() {
    let text = data_error("rooms,price\n1,2\n1,2,3\n");
    assert!(text.contains("line 3 has 3 cells, the header 2"), "{text}");
    let text = data_error("rooms,area,price\n1,2,3\n1,2\n");
    assert!(text.contains("line 3 has 2 cells, the header 3"), "{text}");
}

fn two_rows(text: &str) {
    let data = load_text(text, "price").unwrap();
    assert_eq!(
        (data.width(), data.features()),
        (1, &[3.0, 5.0][..]),
        "{text}"
    );
    let values = vec![2.5, 4.0];
    assert_eq!(data.targets(), &Targets::Values { values, width: 1 });
}

#[test]
fn the_header_says_what_separates_the_cells() {
    two_rows("rooms,price\n3,2.5\n5,4\n");
    two_rows("rooms;price\n3;2.5\n5;4\n");
    two_rows("rooms\tprice\r\n3\t2.5\r\n5\t4\r\n");
    two_rows("\u{feff}\"price\",\"rooms\"\n\"2.5\",3\n4,5");
    two_rows("\"rooms, bath\";price\n3;2.5\n5;4\n");
    let error = load_text("rooms;area\n1;2\n", "price")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("semicolons") && error.contains("rooms, area"),
        "{error}"
    );
    let error = load_text("rooms area\n1 2\n", "price")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("neither commas nor semicolons nor tabs"),
        "{error}"
    );
}

#[test]
fn rows_and_headers_may_end_with_a_separator() {
    two_rows("rooms,price\n3,2.5,\n5,4,\n");
    two_rows("rooms;price;\n3;2.5;\n5;4\n");
    let text = data_error("rooms,price,\n3,2.5,9\n");
    assert!(text.contains("line 2 has 3 cells"), "{text}");
}

#[test]
fn a_decimal_comma_is_named() {
    let text = data_error("rooms;price\n1,5;2\n");
    assert!(
        text.contains("line 2, column 'rooms': '1,5'") && text.contains("decimal point"),
        "{text}"
    );
    let text = data_error("rooms,price\n1,5,2\n");
    assert!(
        text.contains("line 2 has 3 cells") && text.contains("decimal commas"),
        "{text}"
    );
}

#[test]
fn missing_and_enormous_numbers_are_told_from_words() {
    let reason = |cell: &str, reason: &str| {
        let text = data_error(&format!("rooms,price\n1,2\n3,{cell}\n"));
        assert!(
            text.contains("line 3, column 'price'") && text.contains(reason),
            "{text}"
        );
    };
    for cell in ["", " ", "NA", "null", "?"] {
        reason(cell, "missing");
    }
    for cell in ["1e39", "-4e38", "1e999"] {
        reason(cell, "beyond f32");
    }
    reason("NaN", "not a finite number");
    reason("-inf", "not a finite number");
    reason("red", "not a number");
}

#[test]
fn columns_that_number_the_rows_are_noticed() {
    let noticed = |text: &str, ignored: &[&str]| {
        let columns = columns(&["price"], ignored, &[]);
        read(text, &columns).unwrap().row_numbers()
    };
    assert_eq!(noticed(",price\n7,2\n", &[]), [0]);
    assert_eq!(noticed("price,Unnamed: 0\n7,2\n", &[]), [1]);
    assert_eq!(noticed("id,price\n1,2\n2,2\n3,2\n", &[]), [0]);
    assert!(noticed("id,rooms,price\n1,5,2\n2,4,2\n3,9,2\n", &["id"]).is_empty());
    assert!(noticed("rooms,price\n1,2\n2,2\n4,2\n", &[]).is_empty());
    // They stay inputs.
    assert_eq!(load_text(",price\n7,1\n8,2\n", "price").unwrap().width(), 1);
}

/// f32 knows 1.7e9 to 128 seconds.
#[test]
fn seconds_are_centred_before_they_are_rounded() {
    let rows: Vec<String> = (0..4)
        .map(|row| format!("{},{row}", 1_700_000_000 + 60 * row))
        .collect();
    let text = format!("time,price\n{}\n", rows.join("\n"));
    let mut train = load_text(&text, "price").unwrap();
    let mut test = train.clone();
    crate::data::standardise(&mut train, &mut test).unwrap();
    for (row, &found) in train.features().iter().enumerate() {
        let expected = (row as f64 - 1.5) / 1.25f64.sqrt();
        assert!(
            (f64::from(found) - expected).abs() < 1e-6,
            "{found} {expected}"
        );
    }
    let error = load_text(&text, "time").unwrap_err();
    assert!(
        matches!(error, Error::Data { .. }) && error.to_string().contains("f32"),
        "{error}"
    );
}

#[test]
fn other_encodings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("houses.csv");
    for (bytes, word) in [
        (&b"\xff\xfep\0r\0"[..], "UTF-16"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"rooms,price\n1,\xff\n", "line 2"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = load(&path, "price").unwrap_err();
        assert!(
            matches!(error, Error::Data { .. }) && error.to_string().contains(word),
            "{error}"
        );
    }
}

#[test]
fn an_unknown_or_ambiguous_target_is_refused() {
    let error = load_text("rooms,area\n1,2\n", "price").unwrap_err();
    assert!(matches!(error, Error::Option { .. }), "{error}");
    assert!(error.to_string().contains("rooms, area"), "{error}");
    let error = load_text("price,price\n1,2\n", "price").unwrap_err();
    assert!(matches!(error, Error::Option { .. }), "{error}");
    assert!(matches!(load_text("", "price"), Err(Error::Option { .. })));
}

#[test]
fn a_table_without_rows_or_inputs_is_refused() {
    assert!(data_error("rooms,price\n").contains("no row"));
    assert!(data_error("price\n1\n").contains("only column"));
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nowhere/houses.csv"), "price").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/houses.csv"), "{error}");
}

fn columns(targets: &[&str], ignored: &[&str], categorical: &[&str]) -> Columns {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Columns {
        targets: names(targets),
        ignored: names(ignored),
        categorical: names(categorical),
    }
}

fn read(text: &str, columns: &Columns) -> Result<Table> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("houses.csv");
    std::fs::write(&path, text).unwrap();
    Table::read(&path, columns)
}

/// What goes wrong with a table as training rows.
fn refusal(text: &str, columns: &Columns) -> String {
    let encoded = |table: Table| Encoding::fit(&table)?.apply(&table);
    read(text, columns)
        .and_then(encoded)
        .unwrap_err()
        .to_string()
}

#[test]
fn words_become_one_input_for_each_category() {
    let table = read(
        "id,colour,month,price\nx,red,10,1\n,blue,9,2\ny,red,10,3\n",
        &columns(&["price"], &["id"], &["month"]),
    )
    .unwrap();
    let encoding = Encoding::fit(&table).unwrap();
    // By letters, and by numbers where all are numbers.
    let names = ["colour=blue", "colour=red", "month=9", "month=10"];
    assert_eq!(encoding.inputs(), names);
    let data = encoding.apply(&table).unwrap();
    let rows = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
    assert_eq!(data.features(), rows);
    assert_eq!(encoding.categories("price"), None);
}

#[test]
fn a_target_of_words_or_declared_categories_becomes_classes() {
    let classes = |text: &str, categorical: &[&str]| {
        let table = read(text, &columns(&["kind"], &[], categorical)).unwrap();
        let encoding = Encoding::fit(&table).unwrap();
        let categories = encoding.categories("kind").map(<[String]>::to_vec);
        (
            encoding.apply(&table).unwrap().targets().clone(),
            categories,
        )
    };
    let labels = |labels: &[u32]| Targets::Classes {
        labels: labels.to_vec(),
        classes: 2,
    };
    let words = classes("x,kind\n1,pear\n2,apple\n", &[]);
    assert_eq!(
        words,
        (labels(&[1, 0]), Some(vec!["apple".into(), "pear".into()]))
    );
    let numbers = classes("x,kind\n1,10\n2,9\n", &["kind"]);
    assert_eq!(numbers.0, labels(&[1, 0]));
    let values = vec![10.0, 9.0];
    assert_eq!(
        classes("x,kind\n1,10\n2,9\n", &[]).0,
        Targets::Values { values, width: 1 }
    );
}

#[test]
fn several_targets_are_in_the_order_in_which_they_are_named() {
    let columns = columns(&["b", "a"], &[], &[]);
    let table = read("a,x,b\n1,2,3\n4,5,6\n", &columns).unwrap();
    let data = Encoding::fit(&table).unwrap().apply(&table).unwrap();
    let values = vec![3.0, 1.0, 6.0, 4.0];
    assert_eq!(
        (data.features(), data.targets()),
        (&[2.0, 5.0][..], &Targets::Values { values, width: 2 })
    );
    let text = refusal("a,x,b\nred,2,3\nblue,5,6\n", &columns);
    assert!(text.contains("'a' is a column of categories"), "{text}");
}

#[test]
fn without_targets_inputs_are_their_own() {
    let table = read("a,b\n1,2\n", &Columns::default()).unwrap();
    let data = Encoding::fit(&table).unwrap().apply(&table).unwrap();
    assert_eq!((data.width(), data.targets()), (2, &Targets::Inputs));
}

#[test]
fn missing_and_mixed_cells_are_named() {
    let price = columns(&["price"], &[], &[]);
    for (cell, reason) in [
        ("", "missing"),
        ("?", "declare the column categorical"),
        ("NA", "missing"),
    ] {
        let text = refusal(&format!("colour,price\nred,1\n{cell},2\n"), &price);
        assert!(
            text.contains(&format!("line 3, column 'colour': '{cell}'")) && text.contains(reason),
            "{text}"
        );
    }
    let text = refusal("size,price\n3,1\nlarge,2\n", &price);
    assert!(
        text.contains("line 3, column 'size': 'large' is not a number")
            && text.contains("categorical"),
        "{text}"
    );
    // A declared column takes everything but nothing.
    let declared = columns(&["price"], &[], &["garage"]);
    let table = read("garage,price\nnone,1\n2,2\n", &declared).unwrap();
    assert_eq!(
        Encoding::fit(&table).unwrap().categories("garage").unwrap(),
        ["2", "none"]
    );
    let text = refusal("garage,price\nnone,1\n,2\n", &declared);
    assert!(
        text.contains("line 3, column 'garage': '' is a missing value"),
        "{text}"
    );
    let text = refusal("x,price\n3,low\n4,low\n", &price);
    assert!(text.contains("all 2 training rows have 'low'"), "{text}");
}

#[test]
fn categories_are_those_of_the_training_rows() {
    let price = columns(&["price"], &[], &[]);
    let train = read("colour,price\nred,1\nblue,2\n", &price).unwrap();
    let encoding = Encoding::fit(&train).unwrap();
    // Columns may stand in another order, with others between them.
    let test = read("price,note,colour\n7,,red\n", &price).unwrap();
    assert_eq!(encoding.apply(&test).unwrap().features(), [0.0, 1.0]);
    for (text, reason) in [
        (
            "colour,price\nred,1\ngreen,2\n",
            "line 3, column 'colour': 'green' is in no training row",
        ),
        (
            "colour,price\nred,1\n,2\n",
            "line 3, column 'colour': '' is a missing value",
        ),
        ("shade,price\nred,1\n", "there is no column 'colour'"),
    ] {
        let error = encoding
            .apply(&read(text, &price).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_split_of_a_table_is_that_of_its_data_set() {
    let rows: Vec<String> = (0..20)
        .map(|row| format!("{},{row}", row * row + 7))
        .collect();
    let table = read(
        &format!("x,price\n{}\n", rows.join("\n")),
        &columns(&["price"], &[], &[]),
    )
    .unwrap();
    let encoding = Encoding::fit(&table).unwrap();
    let (train, test) = table.split(0.3, 5).unwrap();
    let whole = encoding.apply(&table).unwrap();
    let expected = whole.split(0.3, 5).unwrap();
    assert_eq!(
        (
            encoding.apply(&train).unwrap(),
            encoding.apply(&test).unwrap()
        ),
        expected
    );
    assert!(matches!(table.split(0.0, 5), Err(Error::Option { .. })));
}

#[test]
fn names_that_do_not_fit_the_header_are_refused_by_their_field() {
    let text = "a,b,c,c\n1,2,3,4\n";
    for (columns, option, reason) in [
        (
            columns(&["z"], &[], &[]),
            "targets",
            "no column 'z'; its columns, separated by commas, are: a, b, c, c",
        ),
        (columns(&["a"], &["z"], &[]), "ignored", "no column 'z'"),
        (columns(&["a"], &[], &["z"]), "categorical", "no column 'z'"),
        (
            columns(&["c"], &[], &[]),
            "targets",
            "more than one column 'c'",
        ),
        (columns(&["a"], &["a"], &[]), "targets", "ignored, and"),
        (columns(&["a", "a"], &[], &[]), "targets", "named twice"),
    ] {
        let error = read(text, &columns).unwrap_err();
        assert!(
            matches!(&error, Error::Option { option: found, .. } if found == option),
            "{error}"
        );
        assert!(error.to_string().contains(reason), "{error}");
    }
    let text = refusal("a,b\n1,2\n", &columns(&["a"], &["b"], &[]));
    assert!(text.contains("there is no input"), "{text}");
}

#[test]
fn more_rows_need_none_of_the_ignored_columns() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let purposes = columns(&["price"], &["id"], &[]);
    let table = Table::read(&file("a.csv", "id,rooms,price\n7,3,1\n"), &purposes).unwrap();
    let encoding = Encoding::fit(&table).unwrap();
    for text in ["price;rooms;\n2;4;\n", "rooms,id,price\n4,no number,2\n"] {
        let more = table.read_more(&file("b.csv", text)).unwrap();
        assert_eq!(encoding.apply(&more).unwrap().features(), [4.0]);
    }
    let without = file("c.csv", "id,rooms\n7,3\n");
    let message = table.read_more(&without).unwrap_err().to_string();
    assert!(message.contains("no column 'price'"), "{message}");
}
