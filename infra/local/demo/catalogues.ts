/** What a demo tenant could have in stock: every item is one kind in one variant by one maker. */
export interface Catalogue {
  /** Invented names. */
  readonly makers: readonly string[];
  readonly places: readonly string[];
  readonly kinds: readonly Kind[];
}

export interface Kind {
  readonly category: string;
  /** Stock keeping units start with it. */
  readonly code: string;
  readonly name: string;
  readonly unit: 'piece' | 'pack' | 'box' | 'pair' | 'set' | 'litre' | 'metre' | 'kilogram';
  /** Each list gives one word of the name. */
  readonly variants: readonly (readonly string[])[];
  /** Cents, of the cheapest and of the dearest variant. */
  readonly price: readonly [number, number];
  /** Units that a delivery brings. */
  readonly delivery: number;
}

const kind = (
  code: string,
  category: string,
  name: string,
  unit: Kind['unit'],
  price: readonly [number, number],
  delivery: number,
  ...variants: string[]
): Kind => ({
  code,
  category,
  name,
  unit,
  price,
  delivery,
  variants: variants.map((list) => list.split('|')),
});

const metric = 'M3|M4|M5|M6|M8|M10|M12|M16';
const screwLengths = '10 mm|16 mm|20 mm|25 mm|30 mm|40 mm|50 mm|60 mm|80 mm|100 mm';
const finishes = 'zinc-plated|stainless A2|stainless A4|black oxide';
const drillSizes = '1.0 mm|1.5 mm|2.0 mm|2.5 mm|3.0 mm|3.5 mm|4.0 mm|5.0 mm|6.0 mm|8.0 mm|10.0 mm|12.0 mm';

/** Hardware and tools. */
const acme: Catalogue = {
  makers: ['Fastwell', 'Ironholt', 'Brackmann'],
  places: ['Aisle 1', 'Aisle 2', 'Aisle 3', 'Aisle 4', 'Aisle 5', 'Yard', 'Counter'],
  // biome-ignore format: one kind a line
  kinds: [
    kind('HXB', 'Bolts', 'Hex bolt', 'box', [280, 4900], 40, metric, screwLengths, finishes),
    kind('SHC', 'Bolts', 'Socket head cap screw', 'box', [320, 5600], 40, metric, screwLengths, finishes),
    kind('WDS', 'Screws', 'Wood screw', 'box', [190, 2400], 60, '3.0|3.5|4.0|4.5|5.0|6.0', screwLengths, 'Torx|Pozidriv', 'zinc-plated|brass|stainless A2'),
    kind('NUT', 'Nuts and washers', 'Hex nut', 'box', [120, 1900], 60, metric, finishes, 'standard|self-locking|flanged'),
    kind('WSH', 'Nuts and washers', 'Washer', 'box', [90, 1200], 60, metric, finishes, 'plain|spring|fender'),
    kind('DRB', 'Drilling', 'Drill bit', 'piece', [180, 3900], 25, drillSizes, 'HSS|cobalt|masonry|wood'),
    kind('SAW', 'Cutting', 'Circular saw blade', 'piece', [1490, 8900], 10, '160 mm|190 mm|210 mm|250 mm|305 mm', '24 teeth|40 teeth|60 teeth|80 teeth', 'for wood|for aluminium|for laminate'),
    kind('SND', 'Abrasives', 'Sanding disc 125 mm', 'pack', [590, 1490], 30, 'grit 40|grit 60|grit 80|grit 120|grit 180|grit 240|grit 320', 'for wood|for metal|for paint'),
    kind('SCD', 'Hand tools', 'Screwdriver', 'piece', [490, 2190], 15, 'PH0|PH1|PH2|PZ1|PZ2|TX10|TX15|TX20|TX25|slotted 4 mm|slotted 6 mm', 'standard|insulated 1000 V'),
    kind('SPN', 'Hand tools', 'Combination spanner', 'piece', [390, 3490], 12, '6 mm|7 mm|8 mm|10 mm|12 mm|13 mm|14 mm|17 mm|19 mm|22 mm|24 mm', 'standard|ratcheting'),
    kind('CBL', 'Electrical', 'Cable', 'metre', [45, 890], 300, '1.5 mm²|2.5 mm²|4 mm²|6 mm²|10 mm²', '3-core|4-core|5-core', 'flexible|rigid'),
    kind('GLV', 'Safety', 'Work gloves', 'pair', [290, 1890], 40, 'size 7|size 8|size 9|size 10|size 11', 'leather|nitrile-coated|cut-resistant'),
  ],
};

const volumes = '10 ml|25 ml|50 ml|100 ml|250 ml|500 ml|1000 ml|2000 ml';
const packs = '100 g|250 g|500 g|1 kg';

/** Laboratory supplies. */
const globex: Catalogue = {
  makers: ['Labora', 'Nordchem', 'Vitrolab', 'Hexagen'],
  places: [
    'Cold room 4 °C',
    'Freezer −20 °C',
    'Store A',
    'Store B',
    'Solvent cabinet',
    'Chemical cabinet',
    'Bench stock',
  ],
  // biome-ignore format: one kind a line
  kinds: [
    kind('BKR', 'Glassware', 'Beaker', 'piece', [290, 4900], 20, volumes, 'borosilicate|polypropylene|quartz', 'low form|tall form'),
    kind('FLK', 'Glassware', 'Erlenmeyer flask', 'piece', [390, 5900], 20, volumes, 'borosilicate|amber|polycarbonate', 'narrow neck|wide neck'),
    kind('VFL', 'Glassware', 'Volumetric flask', 'piece', [890, 7900], 12, volumes, 'class A|class B', 'clear|amber'),
    kind('PIP', 'Liquid handling', 'Pipette tips', 'box', [490, 6900], 30, '10 µl|20 µl|200 µl|300 µl|1000 µl|5 ml', 'standard|filter|low-retention|gel-loading', 'sterile|non-sterile', 'rack|refill'),
    kind('TUB', 'Plasticware', 'Centrifuge tube', 'pack', [690, 4900], 30, '0.5 ml|1.5 ml|2 ml|5 ml|15 ml|50 ml', 'sterile|DNase-free|metal-free', 'snap cap|screw cap', 'clear|amber'),
    kind('PLT', 'Plasticware', 'Microplate', 'pack', [1900, 18_900], 15, '6-well|12-well|24-well|48-well|96-well|384-well', 'flat bottom|round bottom|V bottom', 'tissue-culture treated|untreated|black', 'with lid|without lid'),
    kind('SLV', 'Solvents', 'Solvent', 'litre', [1290, 14_900], 24, 'Acetone|Acetonitrile|Ethanol absolute|Isopropanol|Methanol|Toluene|n-Hexane|Ethyl acetate|Dichloromethane|DMSO', 'HPLC grade|analytical grade|technical', '1 l bottle|2.5 l bottle|5 l can'),
    kind('SLT', 'Chemicals', 'Reagent', 'piece', [890, 12_900], 12, 'Sodium chloride|Potassium chloride|Magnesium sulfate|Calcium chloride|Sodium hydroxide|Citric acid|Glucose|Sucrose|Tris base|EDTA|Urea|Agarose', packs, 'ACS grade|molecular biology grade|ultrapure'),
    kind('ENZ', 'Molecular biology', 'Enzyme', 'piece', [4900, 38_900], 6, 'Taq polymerase|High-fidelity polymerase|T4 DNA ligase|EcoRI|BamHI|HindIII|Proteinase K|RNase A|Reverse transcriptase', '100 U|500 U|1000 U|5000 U', 'recombinant|native'),
    kind('ABD', 'Antibodies', 'Antibody', 'piece', [18_900, 64_900], 3, 'anti-GAPDH|anti-β-actin|anti-CD3|anti-CD4|anti-CD8|anti-GFP|anti-HA|anti-FLAG|anti-p53|anti-Ki-67', 'mouse|rabbit|goat', 'unconjugated|HRP|Alexa 488|Alexa 647'),
    kind('FLT', 'Filtration', 'Syringe filter', 'pack', [2900, 15_900], 12, '0.1 µm|0.2 µm|0.45 µm|0.8 µm', 'PES|PTFE|nylon|PVDF|cellulose acetate', '13 mm|25 mm|33 mm', 'sterile|non-sterile'),
    kind('GLN', 'Safety', 'Nitrile gloves', 'box', [690, 1690], 60, 'XS|S|M|L|XL', 'blue|black|white', 'standard cuff|long cuff'),
  ],
};

const colours = 'black|silver|white';

/** Office supplies and IT. */
const initech: Catalogue = {
  makers: ['Officium', 'Deskwright', 'Netzwerk & Co'],
  places: ['Store room 1', 'Store room 2', 'IT cage', 'Print room', 'Reception', 'Basement'],
  // biome-ignore format: one kind a line
  kinds: [
    kind('LAP', 'Computers', 'Laptop', 'piece', [79_900, 289_900], 6, '13"|14"|15"|16"', '16 GB|32 GB|64 GB', '512 GB|1 TB|2 TB', 'QWERTY|QWERTZ|AZERTY', colours),
    kind('MON', 'Displays', 'Monitor', 'piece', [14_900, 99_900], 8, '24"|27"|32"|34" ultrawide', 'Full HD|QHD|4K', 'fixed stand|height-adjustable|arm mount', 'USB-C|HDMI'),
    kind('DOC', 'Accessories', 'Docking station', 'piece', [8900, 32_900], 10, 'USB-C|Thunderbolt 4', '65 W|100 W|140 W', 'single display|dual display|triple display'),
    kind('KBD', 'Accessories', 'Keyboard', 'piece', [1990, 17_900], 15, 'wired|wireless|Bluetooth', 'QWERTY|QWERTZ|AZERTY', 'full size|compact', 'flat|mechanical', colours),
    kind('MSE', 'Accessories', 'Mouse', 'piece', [990, 10_900], 20, 'wired|wireless|Bluetooth', 'standard|vertical|trackball', 'left-handed|right-handed', colours),
    kind('CBN', 'Cables', 'Network cable', 'piece', [190, 3900], 60, 'Cat 6|Cat 6a|Cat 7', '0.5 m|1 m|2 m|3 m|5 m|10 m|20 m', 'grey|blue|yellow|red|green'),
    kind('CBU', 'Cables', 'USB-C cable', 'piece', [590, 4900], 50, '0.5 m|1 m|2 m|3 m', '60 W|100 W|240 W', 'USB 2.0|10 Gbit/s|40 Gbit/s', 'black|white'),
    kind('TNR', 'Printing', 'Toner cartridge', 'piece', [3900, 24_900], 12, 'LX-310|LX-420|LX-550|MF-12|MF-24|MF-36', 'black|cyan|magenta|yellow', 'standard yield|high yield', 'original|remanufactured'),
    kind('PPR', 'Printing', 'Copy paper', 'pack', [390, 1890], 200, 'A3|A4|A5', '80 g/m²|90 g/m²|120 g/m²|160 g/m²', 'white|recycled|ivory|light blue'),
    kind('PEN', 'Stationery', 'Ballpoint pens', 'box', [390, 1990], 40, 'black|blue|red|green', 'fine|medium|broad', 'box of 10|box of 20|box of 50', 'retractable|capped'),
    kind('NTB', 'Stationery', 'Notebook', 'piece', [190, 1690], 60, 'A4|A5|A6', 'lined|squared|dotted|plain', '80 pages|120 pages|240 pages', 'softcover|hardcover|spiral'),
    kind('CHR', 'Furniture', 'Office chair', 'piece', [14_900, 89_900], 5, 'mesh|fabric|leather', 'with armrests|without armrests', 'black|grey|blue|red', 'standard|large|with headrest'),
    kind('DSK', 'Furniture', 'Desk', 'piece', [19_900, 99_900], 4, '120 × 80 cm|160 × 80 cm|180 × 80 cm|200 × 100 cm', 'fixed|crank|electric', 'white|oak|walnut|black', 'with cable tray|without cable tray'),
  ],
};

export const catalogues = { acme, globex, initech } as const;
