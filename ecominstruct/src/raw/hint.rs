//! `hint3_curekart`: single messages to a shop with their intent.

use std::io;

use super::clean::clean;
use super::table::{Layout, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Dialogue, Record, Turn};

/// Labels whose messages ask for much the same: when a parcel comes.
const ALIKE: [&str; 4] = ["CHECK_PINCODE", "DELAY_IN_PARCEL", "ORDER_QUERY", "RESUME_DELIVERY"];

/// What the labels mean, by the messages that have them: many name a step of the shop's own program.
const INTENTS: [(&str, &str); 25] = [
    ("CALL_CENTER", "the phone number of customer care"),
    ("CANCEL_ORDER", "cancelling an order"),
    ("CHAT_WITH_AGENT", "talking to a person"),
    ("CONSULT_START", "starting a diet consultation"),
    ("EXPIRY_DATE", "the expiry date of a product"),
    ("FRANCHISE", "selling or franchising"),
    ("IMMUNITY", "a stronger immune system"),
    ("INTERNATIONAL_SHIPPING", "shipping to other countries"),
    ("MODES_OF_PAYMENTS", "the ways to pay"),
    ("MODIFY_ADDRESS", "changing the delivery address"),
    ("NO_NODES_DETECTED", "out of scope"),
    ("ORDER_STATUS", "the status of an order"),
    ("ORDER_TAKING", "placing an order or whether orders are accepted"),
    ("ORIGINAL_PRODUCT", "whether the product is genuine"),
    ("PAYMENT_AND_BILL", "a payment or bill"),
    ("PORTAL_ISSUE", "trouble with the website or app"),
    ("RECOMMEND_PRODUCT", "a question about products or a recommendation"),
    ("REFER_EARN", "rewards for referring friends"),
    ("REFUNDS_RETURNS_REPLACEMENTS", "a refund or return or replacement"),
    ("SIDE_EFFECT", "side effects of a product"),
    ("SIGN_UP", "signing up"),
    ("START_OVER", "starting the chat over"),
    ("STORE_INFORMATION", "information about the stores"),
    ("USER_GOAL_FORM", "filling in the goals or the assessment"),
    ("WORK_FROM_HOME", "whether the office is open"),
];

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(file, Layout::Csv, ["sentence", "label"], rows, |rows, line, [text, label]| {
        let intent = match INTENTS.iter().find(|i| i.0 == label) {
            Some((_, gloss)) => (*gloss).to_owned(),
            None => clean(&label.to_lowercase().replace('_', " ")),
        };
        let turn = Turn { text: clean(text), ..Turn::default() };
        let dialogue = Dialogue {
            meta: file.meta(line, Lang::En),
            turns: vec![turn],
            intent: Some(intent).filter(|_| !ALIKE.contains(&label)),
            ..Dialogue::default()
        };
        rows.push(line, Record::Dialogue(dialogue));
    })
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, dialogues};

    #[test]
    fn intents_are_readable() {
        let text = "sentence,label\nwhere are you,STORE_INFORMATION\nhm,NO_NODES_DETECTED\n,SIGN_UP\n";
        let (found, report) = dialogues(super::read, "hint3_curekart/a.csv", text);
        let intents: Vec<_> = found.iter().map(|d| d.intent.as_deref().unwrap()).collect();
        assert_eq!(intents, ["information about the stores", "out of scope"]);
        assert_eq!(bad(&report), ["hint3_curekart/a.csv:4: wanted a clean text as turn, found nothing"]);
    }
}
