//! A made-up shop that has what the product tasks need.

use super::super::words::place;
use crate::instruction::Lang;
use crate::raw::Split;
use crate::record::{Attribute, Meta, Pair, Product, Record, Span, TypedSpan};
use crate::task::block::Block;

/// `[brand:Acme] [item:lamp]` as text and spans.
pub fn marked(text: &str) -> (String, Vec<TypedSpan>) {
    let (mut title, mut spans) = (String::new(), Vec::new());
    for (i, part) in text.split(['[', ']']).enumerate() {
        match part.split_once(':').filter(|_| i % 2 == 1) {
            Some((kind, words)) => {
                let span = Span { start: title.len(), end: title.len() + words.len() };
                title.push_str(words);
                spans.push(TypedSpan { span, kind: kind.to_owned() });
            }
            None => title.push_str(part),
        }
    }
    (title, spans)
}

pub fn meta(source: &str, i: usize, lang: Lang) -> Meta {
    Meta { raw_id: format!("{source}:{i}"), group: format!("{source}:{i}"), lang }
}

/// Titles with entity annotation only.
pub fn entities() -> Block {
    let titles = [
        "[品牌:木叶]原创[材质:纯棉][商品:衬衫]男女同款[商品:外套][颜色:米白色]",
        "[品牌:青川][材质:陶瓷][商品:花瓶]摆件[颜色:天蓝色]家用[商品:插花瓶]客厅",
        "秋冬新款[材质:羊毛][商品:围巾]女士[颜色:深灰色][颜色:酒红色]加厚[商品:披肩]",
        "[商品:收纳箱]大号[材质:塑料]带盖[商品:整理箱]衣物[商品:储物盒]透明",
        "[品牌:北渔][商品:保温杯]便携[材质:不锈钢]学生[商品:水壶][颜色:墨绿色]",
        "[品牌:小满]儿童[商品:书包]小学生[颜色:粉红色]减负[商品:双肩包]男孩",
        "家用[商品:电水壶]自动断电[材质:玻璃][商品:煮茶器][品牌:山雀][颜色:透明色]",
        "[商品:毛巾]洗脸[材质:竹纤维][颜色:浅黄色]四条装[品牌:云朵]",
    ];
    let mut block = Block::new("marks", Split::Train, Lang::Zh);
    for (i, text) in titles.iter().enumerate() {
        let (title, spans) = marked(text);
        block.push(Record::Product(Product { meta: meta("marks", i, Lang::Zh), title, spans, ..Product::default() }));
    }
    block
}

const SHELVES: [(&str, &str, &str); 6] = [
    ("Lighting", "Desk Lamps", "desk lamp"),
    ("Lighting", "Floor Lamps", "floor lamp"),
    ("Kitchen", "Kettles", "kettle"),
    ("Kitchen", "Frying Pans", "frying pan"),
    ("Garden", "Spades", "spade"),
    ("Garden", "Watering Cans", "watering can"),
];
const BRANDS: [&str; 6] = ["Ostra", "Velm", "Kerrin", "Tolva", "Junip", "Marlo"];
const COLORS: [&str; 6] = ["crimson", "navy", "ivory", "olive", "amber", "teal"];
const STUFFS: [&str; 6] = ["oak", "copper", "bamboo", "zinc", "marble", "canvas"];

/// Titles with annotated attributes, categories, descriptions, short titles and clusters of two offers.
pub fn catalogue() -> Block {
    let mut block = Block::new("shelf", Split::Train, Lang::En);
    for n in 0..72 {
        let (department, leaf, noun) = SHELVES[n % 6];
        // Words go with their leaf, so that a gap can be filled.
        let word = |list: &[&str; 6], k: usize| list[(n % 6 + k) % 6].to_owned();
        let brand = word(&BRANDS, (n / 6) % 2);
        let color = word(&COLORS, (n / 12) % 3);
        let stuff = word(&STUFFS, (n / 36) % 2);
        let code = format!("{}{}", ["QX", "RV", "TB"][n % 3], 400 + n / 2);
        let named = (n / 6) % 3 != 0;
        let mut title = format!("{code} {color} {stuff} {noun} {}W", 10 + n / 2);
        if named {
            title = format!("{brand} {title}");
        }
        let attribute = |name: &str, value: &str| Attribute {
            name: name.into(),
            value: value.to_owned(),
            span: place(&title, value),
        };
        let mut attributes = vec![
            attribute("color", &color),
            attribute("material", &stuff),
            attribute("model number", &code),
            attribute("power", &format!("{}W", 10 + n / 2)),
            attribute("warranty", ["two years", "lifelong", "half a year"][n % 3]),
            attribute("origin", ["Tallinn", "Lisbon"][n % 2]),
        ];
        if named {
            attributes.push(attribute("brand", &brand));
        }
        for (k, name) in ["finish", "height class", "care", "power source"].into_iter().enumerate() {
            if (n / 6 + k) % 3 == 0 {
                attributes.push(attribute(name, ["matt", "tall", "wipe clean", "mains"][k]));
            }
        }
        let cluster = format!("c{}", n % 6 + 6 * (n / 12));
        let description = format!(
            "Made of {stuff} in {color}, this {noun} {code} of {}W lasts for years and looks good.{}",
            10 + n / 2,
            if named { format!(" It is from {brand}.") } else { String::new() }
        );
        block.push(Record::Product(Product {
            meta: Meta { group: cluster.clone(), ..meta("shelf", n, Lang::En) },
            short_title: Some(format!("{color} {noun}")),
            description: Some(description),
            category: vec![department.into(), leaf.into()],
            attributes,
            attributes_complete: true,
            brand: named.then_some(brand),
            cluster: Some(cluster),
            title,
            ..Product::default()
        }));
    }
    block
}

/// Titles of eight leaf categories.
pub fn aisles() -> Block {
    let mut block = Block::new("aisles", Split::Train, Lang::En);
    let nouns = ["desk lamp", "floor lamp", "kettle", "frying pan", "spade", "watering can", "armchair", "bookcase"];
    for n in 0..48 {
        let noun = nouns[n % 8];
        let category = vec![format!("Department {}", n % 8 / 2), format!("All {noun}s")];
        let title = format!("{} {} {noun}", COLORS[n / 8], STUFFS[n % 6]);
        block.push(Record::Product(Product {
            meta: meta("aisles", n, Lang::En),
            title,
            category,
            ..Product::default()
        }));
    }
    block
}

/// Listings judged in pairs, without clusters.
pub fn pairs() -> Block {
    let mut block = Block::new("pairs", Split::Train, Lang::En);
    let names = ["office suite 2007", "office suite 2010", "photo album 3", "tax helper 12"];
    for (i, name) in names.iter().enumerate() {
        let judged = |j: usize, same| Pair { other: format!("pairs:{j}"), same };
        let offer = |n: usize, title: String, judged: Vec<Pair>| {
            let attributes = vec![Attribute { name: "publisher".into(), value: "Velm".into(), span: None }];
            Product { meta: meta("pairs", n, Lang::En), title, attributes, judged, ..Product::default() }
        };
        let others = (0..4).filter(|j| *j != i).map(|j| judged(10 + j, false));
        block.push(Record::Product(offer(i, format!("velm {name}"), others.chain([judged(10 + i, true)]).collect())));
        block.push(Record::Product(offer(10 + i, format!("{name} software by velm"), Vec::new())));
    }
    block
}
