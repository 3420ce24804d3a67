//! Customer dialogues.

use super::pick;
use super::product::Variant;
use super::words::fill;
use super::world::World;
use crate::instruction::Lang;
use crate::record::{Attribute, Dialogue, Speaker, Turn};
use crate::splitmix::SplitMix;

/// A dialogue about `variant` with the intent at `intent` of the world's list (round and round), and all that is said in it.
/// It ends with the customer; the agent's answer is the reference reply.
pub(super) fn dialogue(world: &World, variant: &Variant, intent: usize, rng: &mut SplitMix) -> (Dialogue, String) {
    let mut dialogue = Dialogue::default();
    let Some((name, ways)) = world.intents.get(intent % world.intents.len().max(1)) else {
        return (dialogue, String::new());
    };
    let [hello, opening, reply, shape] =
        ["hellos", "openings", "replies", "shapes"].map(|key| pick(rng, &world.words.list("dialogue", key)));
    let request = pick(rng, ways);
    for parts in shape.split(" / ") {
        let mut turn = Turn::default();
        for part in parts.split(' ') {
            let template = match part {
                "hello" => hello,
                "opening" => opening,
                "reply" => reply,
                _ => request,
            };
            if world.lang == Lang::En && !turn.text.is_empty() {
                turn.text.push(' ');
            }
            if part == "reply" {
                turn.speaker = Speaker::Agent;
            }
            say(world, variant, template, &mut dialogue.slots, rng, &mut turn.text);
            turn.acts.push(world.words.line("acts", part).to_owned());
        }
        // A request weighs more than what is said around it.
        turn.acts.sort_by_key(|act| act != world.words.line("acts", "request"));
        dialogue.turns.push(turn);
    }
    let mut answer = String::new();
    say(world, variant, pick(rng, &world.words.list("answers", name)), &mut Vec::new(), rng, &mut answer);
    dialogue.replies.push(answer);
    let mut summary = String::new();
    fill(&mut summary, world.words.line("dialogue", "summary"), &mut |out, slot| match slot {
        "intent" => out.push_str(name),
        _ => out.push_str(&world.in_text(variant.item)),
    });
    dialogue.summary = Some(summary);
    dialogue.intent = Some((*name).to_owned());
    let said = dialogue.turns.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join("\n");
    (dialogue, said)
}

/// Appends a template; what fills it goes into `slots`.
fn say(
    world: &World,
    variant: &Variant,
    template: &'static str,
    slots: &mut Vec<Attribute>,
    rng: &mut SplitMix,
    out: &mut String,
) {
    fill(out, template, &mut |out, slot| {
        let value = match slot {
            "thing" => return say(world, variant, pick(rng, &world.words.list("dialogue", "things")), slots, rng, out),
            "n" => (1000 + rng.below(9000)).to_string(),
            "day" => pick(rng, &world.days).to_owned(),
            "brand" => variant.brand.to_owned(),
            _ => world.in_text(variant.slot(slot).unwrap_or_default()),
        };
        out.push_str(&value);
        slots.push(Attribute { name: variant.name(world, slot).to_owned(), value, span: None });
    });
}
