//! Customer dialogues.

use super::words::fill;
use super::world::World;
use super::{Dialogue, Product, pick};
use crate::splitmix::SplitMix;

/// A dialogue about `product` with the intent at `intent` of the world's list (round and round).
pub(super) fn dialogue(world: &World, product: &Product, intent: usize, rng: &mut SplitMix) -> Dialogue {
    let mut dialogue = Dialogue { id: String::new(), product: 0, text: String::new(), intent: "" };
    let Some((name, ways)) = world.intents.get(intent % world.intents.len().max(1)) else { return dialogue };
    dialogue.intent = name;
    let [opening, reply, shape] =
        ["openings", "replies", "shapes"].map(|key| pick(rng, &world.words.list("dialogue", key)));
    let request = pick(rng, ways);
    fill(&mut dialogue.text, shape, &mut |out, part| {
        let template = match part {
            "opening" => opening,
            "reply" => reply,
            _ => request,
        };
        fill(out, template, &mut |out, slot| slot_text(world, product, slot, rng, out));
    });
    dialogue.text = dialogue.text.replace('/', "\n");
    dialogue
}

fn slot_text(world: &World, product: &Product, slot: &str, rng: &mut SplitMix, out: &mut String) {
    match slot {
        "thing" => {
            let template = pick(rng, &world.words.list("dialogue", "things"));
            fill(out, template, &mut |out, slot| slot_text(world, product, slot, rng, out));
        }
        "n" => out.push_str(&(1000 + rng.below(9000)).to_string()),
        "day" => out.push_str(pick(rng, &world.days)),
        "brand" => out.push_str(product.brand),
        _ => out.push_str(&world.in_text(product.slot(slot).unwrap_or_default())),
    }
}
