"""The page that compares several runs: `joint` is the page, `groups` takes runs together that differ in their seed."""
