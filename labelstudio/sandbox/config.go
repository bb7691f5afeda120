package sandbox

import _ "embed"

// LabelConfig is the label configuration of the projects here: it shows prompt and response, offers the star as the choice
// gold_star and the corrected response as the text area response. Importing a task needs prompt and response in its data.
//
//go:embed label_config.xml
var LabelConfig string
