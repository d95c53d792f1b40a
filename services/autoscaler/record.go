package autoscaler

import "github.com/warmpath/warmpath/services/autoscaler/decide"

// RecordVersion is that of Record.
const RecordVersion = 1

// Record is a decision as it is logged on bus.ScaleSubject: one for each tick that changes anything, and one a minute
// otherwise.
type Record struct {
	Version int    `json:"v"`
	Pool    string `json:"pool"`
	decide.Decision
}
