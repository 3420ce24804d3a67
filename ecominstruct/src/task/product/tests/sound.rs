//! What would read badly, or is too poorly annotated to ask about.

use super::*;

#[test]
fn titles_that_tell_more_than_is_known_are_not_written() {
    let known = "Brand: Ostra; Color: Navy; Desk Lamps";
    for (title, more) in
        [("Ostra Navy Desk Lamp", false), ("Ostra Navy Desk Lamp 2 Pack", false), ("Ostra Navy Dimmable Lamp", true)]
    {
        assert_eq!(copy::adds(title, known), more, "{title}");
    }
    let mut block = Block::new("copy", Split::Train, Lang::Zh);
    let linen = Attribute { name: "材质".into(), value: "亚麻".into(), span: None };
    block.push(Record::Product(Product {
        meta: meta("copy", 0, Lang::Zh),
        description: Some("亚麻长裙".into()),
        attributes: vec![linen],
        ..Product::default()
    }));
    for (text, invented) in
        [("红色的长裙", false), ("亚麻的红色长裙", true), ("Velm的红色长裙", true), ("T恤红色", false)]
    {
        assert_eq!(copy::invents(&block, text, "颜色: 红色"), invented, "{text}");
    }
    assert!(!copy::invents(&block, "亚麻的长裙", "材质: 亚麻"));
}

#[test]
fn torn_numbers_and_other_colours_are_passed_over() {
    for (title, torn) in
        [("vacuum v10 .0", true), ("tool 5 in 1", true), ("kit 3rd gen", true), ("tv 40 in. black", false)]
    {
        assert_eq!(offer::is_torn(title), torn, "{title}");
    }
    for (a, b, clash) in [("mug red", "mug blue", true), ("mug gray", "mug grey", false), ("mug red", "mug", false)] {
        assert_eq!(offer::clash_in_color(a, b), clash, "{a} {b}");
    }
}

#[test]
fn titles_with_unmarked_mentions_are_passed_over() {
    let mut block = entities();
    for (i, text) in ["[商品:花瓶]蓝色", "[商品:花瓶]绿色", "[商品:水壶]家用花瓶", "[商品:花瓶]家用"].iter().enumerate()
    {
        let (title, spans) = marked(text);
        let product = Product { meta: meta("marks", 90 + i, Lang::Zh), title, spans, ..Product::default() };
        block.push(Record::Product(product));
    }
    let last = block.products.len();
    let unmarked: Vec<bool> = (last - 4..last).map(|i| block.has_unmarked(&block.products[i])).collect();
    assert_eq!(unmarked, [false, false, true, false]);
    for id in ["F01", "A01", "A02", "A04", "A06", "A10"] {
        let Make::From(make) = TASKS.iter().find(|t| t.id == id).unwrap().draft else { panic!() };
        assert!((0..SEEDS).all(|seed| make(&block, last - 2, &mut SplitMix::new(seed)).is_none()), "{id}");
    }
}

#[test]
fn a_title_ends_where_its_mentions_do() {
    for (text, odd) in
        [("[商品:花瓶][颜色:蓝色]家用", false), ("[商品:花瓶]5件[颜色:蓝色]", true), ("[商品:花瓶][颜色:蓝色]×", true)]
    {
        let (title, spans) = marked(text);
        let product = Product { title, spans, ..Product::default() };
        assert_eq!(typed::ends_oddly(&product, &facts::mentions(&product).unwrap()), odd, "{text}");
    }
}

#[test]
fn like_names_of_one_cut_are_not_set_against_each_other() {
    for (a, b, alike) in
        [("图案", "颜色", true), ("衣样式", "衣款式", true), ("裙腰型", "版型", true), ("颜色", "材质", false)]
    {
        assert_eq!(facts::is_similar(a, b), alike, "{a} {b}");
    }
}

/// What a task makes of a block of its own.
fn made_of(block: &Block, id: &str) -> Vec<(usize, Draft)> {
    drafts(TASKS.iter().find(|t| t.id == id).unwrap(), block)
}

#[test]
fn among_few_categories_a_title_names_its_own_and_no_other() {
    let block = |titles: [&str; 4]| {
        let mut block = Block::new("few", Split::Train, Lang::En);
        let leaves = ["kettles", "spades", "lamps", "chairs"];
        for n in 0..40 {
            let title = format!("{} {} {}", BRANDED[n / 4], titles[n % 4], n / 4);
            let category = vec![leaves[n % 4].into()];
            block.push(Record::Product(Product {
                meta: meta("few", n, Lang::En),
                title,
                category,
                ..Product::default()
            }));
        }
        block
    };
    assert!(!made_of(&block(["kettle", "spade", "lamp", "chair"]), "A29").is_empty());
    // Nothing tells a pot's category; a lamp chair is either.
    let pots = made_of(&block(["pot", "spade", "lamp", "chair"]), "A29");
    assert!(!pots.is_empty() && pots.iter().all(|(_, d)| !words(d)[0].contains("pot")), "{pots:?}");
    for (_, draft) in made_of(&block(["kettle", "spade", "lamp", "lamp chair"]), "A29") {
        assert!(draft.candidates.iter().all(|c| !c.contains("lamp chair")), "{draft:?}");
    }
}

const BRANDED: [&str; 10] = ["ostra", "velm", "kerrin", "tolva", "junip", "marlo", "sola", "brint", "fenn", "quill"];

#[test]
fn a_sheet_with_a_second_value_is_not_called_consistent() {
    let mut block = catalogue();
    // Every fourth product has two colours, of which its title states one.
    for product in block.products.iter_mut().step_by(4) {
        product.attributes.push(Attribute { name: "color".into(), value: "scarlet".into(), span: None });
    }
    for id in ["F06", "A18"] {
        let all = made_of(&block, id);
        assert!(all.iter().any(|(_, d)| says_yes(d)), "{id}");
        for (_, draft) in all.iter().filter(|(_, d)| says_yes(d)) {
            assert!(!part(draft, "attributes").contains("scarlet"), "{draft:?}");
        }
    }
}

#[test]
fn several_at_once_are_no_wrong_value() {
    let mut block = catalogue();
    let is_color = |a: &&mut Attribute| a.name == "color";
    for product in &mut block.products[36..] {
        product.attributes.iter_mut().filter(is_color).for_each(|a| a.value = "Multicolor".into());
    }
    let all = made_of(&block, "A19");
    assert!(!all.is_empty() && all.iter().all(|(_, d)| !words(d)[0].contains("Multi")), "{all:?}");
}

#[test]
fn a_brand_is_no_other_value_and_no_line_of_products() {
    let ask = |brand: &str| {
        let mut block = catalogue();
        let first = block.products.iter_mut().find(|p| p.brand.is_some()).unwrap();
        first.title = format!("{brand} desk lamp 10W");
        first.attributes.clear();
        first.brand = Some(brand.into());
        let at = block.products.iter().position(|p| p.title.starts_with(brand)).unwrap();
        made_of(&block, "F11").into_iter().any(|(i, _)| i == at)
    };
    // A new brand; a material; a brand of the block with a line of its products.
    for (brand, asked) in [("Brint", true), ("oak", false), ("Velm Dream", false)] {
        assert_eq!(ask(brand), asked, "{brand}");
    }
}
