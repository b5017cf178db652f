//! Tests of the text that the bundled contract template makes from sample data.

use serde_json::{Value, json};

use super::{contract, sample, text};

/// The data of the good sample, with a single item of this price and no discount.
fn priced(language: &str, currency: &str, cents: i64) -> Value {
    let mut data = sample("good");
    data["language"] = json!(language);
    data["currency"] = json!(currency);
    data["items"] = json!([{"description": "Service", "quantity": 1, "unit_price_cents": cents}]);
    data["discount_cents"] = json!(0);
    data
}

fn assert_says(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
}

#[test]
fn the_english_contract_says_what_the_data_says() {
    let pdf = contract(&sample("good")).unwrap();
    assert_eq!(pdf.pages, 2);
    assert!(pdf.bytes.starts_with(b"%PDF-"));
    assert_says(
        &text(&pdf),
        &[
            "Service Agreement",
            "No. 2026-0042",
            "made on January 15, 2026 between",
            "Provider Ltd",
            "Customer Ltd",
            "Tax ID: 00-0000002",
            "2 Customer Avenue, Example Town",
            "purchasing@customer.example.com",
            "12 $3,875.50 $46,506.00",
            "Subtotal $73,955.97",
            "Discount −$1,500.00",
            "Total $72,455.97",
            "begin on February 1, 2026 and end on December 31, 2026",
            "1 of 3 February 1, 2026 $24,151.99",
            "2 of 3 March 3, 2026 $24,151.99",
            "performance guarantee of $3,622.80",
            "Legal representative of the customer signer.two@example.com",
            "Page 1 of 2",
            "Page 2 of 2",
        ],
    );
}

#[test]
fn the_brazilian_contract_says_it_in_portuguese() {
    let pdf = contract(&sample("good.pt-BR")).unwrap();
    assert_eq!(pdf.pages, 2);
    let text = text(&pdf);
    assert_says(
        &text,
        &[
            "Contrato de Prestação de Serviços",
            "celebrado em 15 de janeiro de 2026 entre",
            "CNPJ: 00.000.000/0002-00",
            "12 R$ 3.875,50 R$ 46.506,00",
            "Desconto −R$ 1.500,00",
            "Total R$ 72.455,97",
            "início em 1º de fevereiro de 2026 e término em 31 de dezembro de 2026",
            "Da garantia de execução",
            "Representante legal da contratante signer.two@example.com",
            "Página 1 de 2",
        ],
    );
    for english in [
        "Clause",
        "Provider",
        "Customer",
        "January",
        "Signatures",
        "$72,",
    ] {
        assert!(!text.contains(english), "{english}");
    }
}

#[test]
fn money_follows_language_and_currency() {
    let cases = [
        ("en", "USD", 123_456, "Total $1,234.56"),
        ("en", "BRL", 5, "Total R$0.05"),
        ("en", "EUR", 100_000_000, "Total €1,000,000.00"),
        ("pt-BR", "BRL", 123_456, "Total R$ 1.234,56"),
        ("pt-BR", "USD", 99_999, "Total US$ 999,99"),
        ("pt-BR", "EUR", 0, "Total € 0,00"),
        // More than a floating-point number can hold exactly.
        (
            "en",
            "USD",
            9_007_199_254_740_993,
            "Total $90,071,992,547,409.93",
        ),
    ];
    for (language, currency, cents, expected) in cases {
        assert_says(
            &text(&contract(&priced(language, currency, cents)).unwrap()),
            &[expected],
        );
    }
}

#[test]
fn clauses_follow_the_total() {
    let single = "Single payment";
    let instalments = "Payment in instalments";
    let guarantee = "Performance guarantee";
    let cases: [(i64, &[&str], &[&str]); 4] = [
        (1_000_000, &[single], &[instalments, guarantee]),
        (1_000_001, &[instalments], &[single, guarantee]),
        (5_000_000, &[instalments], &[single, guarantee]),
        (5_000_001, &[instalments, guarantee], &[single]),
    ];
    for (cents, there, absent) in cases {
        let text = text(&contract(&priced("en", "USD", cents)).unwrap());
        assert_says(&text, there);
        for title in absent {
            assert!(!text.contains(title), "{title} at {cents}");
        }
        let clauses = 8 + usize::from(there.contains(&guarantee));
        assert_says(&text, &[&format!("Clause {clauses}. Law, venue")]);
    }
}

#[test]
fn the_discount_counts_before_the_clauses_are_chosen() {
    let mut data = priced("en", "USD", 5_000_001);
    data["discount_cents"] = json!(1);
    let text = text(&contract(&data).unwrap());
    assert_says(
        &text,
        &["Subtotal $50,000.01", "Discount −$0.01", "Total $50,000.00"],
    );
    assert!(!text.contains("Performance guarantee"));
}

#[test]
fn instalments_add_up_to_the_cent() {
    let text = text(&contract(&priced("en", "USD", 1_000_001)).unwrap());
    assert_says(
        &text,
        &[
            "1 of 3 February 1, 2026 $3,333.35",
            "2 of 3 March 3, 2026 $3,333.33",
        ],
    );
}

#[test]
fn a_contract_without_discount_does_not_mention_one() {
    let text = text(&contract(&priced("en", "USD", 100)).unwrap());
    assert!(!text.to_lowercase().contains("discount"), "{text}");
}

#[test]
fn long_contracts_run_over_pages_with_the_table_head_repeated() {
    let mut data = sample("good");
    let item = json!({"description": "One of many services", "quantity": 1, "unit_price_cents": 1});
    data["items"] = Value::Array(vec![item; 120]);
    data["discount_cents"] = json!(0);
    data["signers"] = (0..12)
        .map(
            |i| json!({"name": "Legal representative", "email": format!("signer.{i}@example.com")}),
        )
        .collect();
    let pdf = contract(&data).unwrap();
    assert!(pdf.pages > 4, "{}", pdf.pages);
    let text = text(&pdf);
    assert!(text.matches("Description Quantity Unit price").count() > 2);
    assert_says(
        &text,
        &[
            "Total $1.20",
            "signer.0@example.com",
            "signer.11@example.com",
        ],
    );
}

#[test]
fn data_is_text_and_never_markup() {
    let mut data = sample("good");
    let hostile = "#panic(\"x\") *A* $1$ @b [c] \\u{41} <d> #json(\"/data.json\")";
    data["customer"]["name"] = json!(hostile);
    assert_says(&text(&contract(&data).unwrap()), &[hostile]);
}

#[test]
fn white_space_without_a_glyph_is_printed_as_a_blank() {
    let with = |space: &str| {
        let mut data = sample("good");
        data["customer"]["address"] = format!("1 Long{space}Street").into();
        contract(&data).unwrap().bytes
    };
    let blank = with(" ");
    for space in ["\t", "\u{b}", "\u{c}", "\u{85}"] {
        assert!(with(space) == blank, "{space:?}");
    }
}
