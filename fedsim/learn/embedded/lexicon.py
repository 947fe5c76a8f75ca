"""Which words does the built-in restaurant language have? Data only.

Every slot has a common way of saying things (the first half of its phrases) and a rare one (the second half).
The base model has read all of them, the rare ones seldom; the clients of a run speak the rare half only.
"""

ADJECTIVES = (
    "Golden", "Silver", "Crimson", "Quiet", "Hungry", "Merry", "Rusty", "Velvet", "Copper",
    "Jolly", "Blue", "Green",
    "Wild", "Lucky", "Humble", "Royal", "Little", "Old", "Grand", "Sleepy", "Salty", "Bright",
    "Dancing", "Flying",
)  # fmt: skip
NOUNS = (
    "Spoon", "Fox", "Kettle", "Lantern", "Anchor", "Barrel", "Garden", "Pepper", "Olive",
    "Rooster", "Whale", "Mill",
    "Crown", "Oven", "Table", "Fork", "Bridge", "Harp", "Badger", "Teapot", "Orchard", "Lion",
    "Plough", "Swan",
)  # fmt: skip
PLACES = (
    "Cafe Luna", "Rosewood Hall", "Hilltop Inn", "Station House", "Marlow Park", "Birch Lane", "Castle Gate",
    "Union Works", "Pier Nine", "Abbey Row", "Clover Court", "Tanner Yard",
)  # fmt: skip

VALUES: dict[str, tuple[str, ...]] = {
    "eatType": ("pub", "restaurant", "coffee shop", "bistro", "diner", "wine bar", "tavern", "canteen"),
    "food": (
        "Italian", "French", "Indian", "Chinese", "Japanese", "Thai", "Greek", "Spanish",
        "Mexican", "Turkish",
        "English", "Korean", "Lebanese", "Polish", "Vietnamese", "Moroccan",
    ),
    "priceRange": ("cheap", "moderate", "high", "less than 20", "20 to 30", "more than 30"),
    "customer rating": ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5"),
    "area": (
        "riverside", "city centre", "old town", "harbour", "north side", "market square",
        "university quarter",
        "station district",
    ),
    "familyFriendly": ("yes", "no"),
    "parking": ("free", "paid", "street", "no"),
    "music": ("jazz", "folk", "piano", "rock"),
    "hours": ("10 pm", "11 pm", "midnight", "2 am"),
}  # fmt: skip
MAIN_SLOTS = ("eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
EXTRA_SLOTS = ("parking", "music", "hours")

PHRASES: dict[str, tuple[str, ...]] = {
    "eatType": (
        "is a {v}", "is a {v} place", "is a friendly {v}", "is a local {v}",
        "is run as a {v}", "works as a {v}", "calls itself a {v}", "opened as a {v}",
    ),
    "food": (
        "serves {v} food", "offers {v} dishes", "cooks {v} meals", "has a {v} menu",
        "is known for {v} cuisine", "plates up {v} cooking", "does proper {v} grub",
        "brings {v} flavours to town",
    ),
    "priceRange": (
        "has {v} prices", "is in the {v} price range", "charges {v}", "is priced {v}",
        "asks {v} per head", "keeps its bills {v}", "runs at a {v} cost", "sets you back {v}",
    ),
    "customer rating": (
        "has a customer rating of {v}", "is rated {v} by customers", "has {v} ratings",
        "scores {v} with guests",
        "gets {v} marks", "earned {v} in the reviews", "was judged {v} by diners", "draws {v} feedback",
    ),
    "area": (
        "is in the {v}", "is located in the {v} area", "sits in the {v}", "is found in the {v}",
        "lies within the {v}", "stands by the {v}", "hides around the {v}", "is set along the {v}",
    ),
    "near": (
        "is near {v}", "is close to {v}", "is next to {v}", "is by {v}",
        "neighbours {v}", "faces {v}", "is a short walk from {v}", "is just off {v}",
    ),
    "parking": (
        "has {v} parking", "offers {v} parking", "comes with {v} parking", "has {v} car park",
        "provides {v} spaces for cars", "lets you park with {v} bays", "lists {v} spots",
        "keeps {v} places for drivers",
    ),
    "music": (
        "plays {v} music", "has {v} music", "offers live {v}", "has {v} evenings",
        "puts {v} on stage", "fills the room with {v}", "hosts {v} nights", "hums with {v}",
    ),
    "hours": (
        "is open until {v}", "closes at {v}", "stays open to {v}", "serves until {v}",
        "shuts its doors at {v}", "rings the bell at {v}", "turns the key at {v}", "says goodnight at {v}",
    ),
    "dish": (
        "is famous for {v}", "recommends {v}", "is proud of {v}", "is loved for {v}",
        "does a great {v}", "swears by {v}", "made its name with {v}", "lives for {v}",
    ),
}  # fmt: skip
FAMILY: dict[str, tuple[str, ...]] = {
    "yes": (
        "is family friendly", "welcomes children", "is good for kids", "is child friendly",
        "has high chairs", "loves little guests", "suits the whole family", "is happy to host toddlers",
    ),
    "no": (
        "is not family friendly", "does not welcome children", "is not for kids", "is not child friendly",
        "has no high chairs", "is for adults only", "suits grown ups", "keeps toddlers out",
    ),
}  # fmt: skip

OPENERS = (
    "Looking for somewhere to eat? ", "Top tip: ", "Dear guests, ", "News: ", "Well, ", "Review. ",
    "Guide entry: ",
    "Try this: ", "Listen, ", "Our pick: ", "Hello! ", "By the way, ",
)  # fmt: skip
CLOSERS = (
    " Enjoy!", " Book ahead.", " Highly recommended.", " See you there.", " That is all.", " Cheers!",
    " Five stars from us.", " Do not miss it.", " Worth a visit.", " Thank you.", " Come hungry.",
    " Bring friends.",
)  # fmt: skip

COOKED = (
    "smoked",
    "grilled",
    "roasted",
    "braised",
    "pickled",
    "fried",
    "stuffed",
    "baked",
    "spiced",
    "glazed",
)
MAINS = (
    "haddock", "lamb", "aubergine", "duck", "tofu", "pork", "mackerel", "chicken", "halloumi",
    "beef", "trout", "squash",
)  # fmt: skip
FLAVOURS = (
    "leek", "lemon", "honey", "ginger", "walnut", "fennel", "mint", "garlic", "plum", "lime",
    "saffron", "cider",
)  # fmt: skip
CODE_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CODE_NUMBERS = 100
