package decide

import "time"

// Decision is how many replicas a pool should have, and why.
type Decision struct {
	At    time.Time             `json:"at"`
	Mode  Mode                  `json:"mode"`
	Roles map[Role]RoleDecision `json:"roles"`
	Blind string                `json:"blind,omitempty"` // which source is missing, and what follows; "" is none
	Ages  Ages                  `json:"ages"`
}

// Ages are those of the sources at the decision, in seconds; negative is never heard.
type Ages struct {
	Routers float64 `json:"routers_s"`
	Engines float64 `json:"engines_s"` // of the oldest scrape among those that serve
	Cluster float64 `json:"cluster_s"`
}

// RoleDecision is that of one role.
type RoleDecision struct {
	Now    int    `json:"now"`    // replicas that are ordered and do not drain
	Need   int    `json:"need"`   // what the rules come to
	Target int    `json:"target"` // what should be, after bounds, budget and blocks: draining replicas are beside it
	Rule   string `json:"rule"`   // the rule that binds

	Candidates []Candidate  `json:"candidates,omitempty"` // of each rule
	Blocked    []string     `json:"blocked,omitempty"`    // what was not done, and why
	Short      int          `json:"short,omitempty"`      // replicas that the budget refused
	Leaving    []string     `json:"leaving,omitempty"`    // drained engines whose end was ordered
	Demand     Demand       `json:"demand"`
	Model      Learned      `json:"model"`
	Predicted  []Prediction `json:"predicted,omitempty"` // at Target-1, Target, Target+1
	Realised   *Realised    `json:"realised,omitempty"`  // of the decision one start-up time ago
}

// Candidate is what one rule asks for.
type Candidate struct {
	Rule string `json:"rule"`
	N    int    `json:"n"`
}

// Demand is what the role has to do, in busy replicas where no unit is said.
type Demand struct {
	Arrivals float64 `json:"arrivals"` // requests/s
	Tokens   float64 `json:"tokens"`   // tokens/s: uncached ones of prefill, output of decode
	Busy     float64 `json:"busy"`     // work that arrives
	Observed float64 `json:"observed"` // decode: occupancy at the objective
	Flow     float64 `json:"flow"`     // decode: what the arrivals will occupy
	Forecast float64 `json:"forecast"` // at the horizon
	Held     float64 `json:"held"`     // greatest forecast of the last while
	Burst    float64 `json:"burst"`    // variance of arrivals over Poisson's

	Infeasible float64 `json:"infeasible"` // share of prompts that no number of replicas serves in time
}

// Learned is the model in force.
type Learned struct {
	Model
	Startup    float64 `json:"startup_s"`  // .9 quantile
	Confidence float64 `json:"confidence"` // 0 is the prior, 1 is all learned
	Sequences  float64 `json:"sequences"`  // that a decode replica holds at the objective
}

// Prediction is what would be with N replicas.
type Prediction struct {
	N          int     `json:"n"`
	Violations float64 `json:"violations"` // share of requests that miss the role's objective
}

// Realised compares a prediction with what came.
type Realised struct {
	At       time.Time `json:"at"` // of the decision
	Forecast float64   `json:"forecast"`
	Came     float64   `json:"came"`
}

// Do is a kind of Step.
type Do string

// The kinds.
const (
	Drain   Do = "drain"   // routers choose the engine no more
	Undrain Do = "undrain" // they may again
	Scale   Do = "scale"   // order so many replicas
)

// Step is one thing to do for a decision.
type Step struct {
	Do       Do       `json:"do"`
	Role     Role     `json:"role"`
	Engine   string   `json:"engine,omitempty"` // of Drain and Undrain
	From     int      `json:"from"`             // of Scale: what is ordered now
	To       int      `json:"to"`
	Victims  []string `json:"victims,omitempty"` // of a Scale down: the drained engines that should go
	Starting int      `json:"starting"`          // of a Scale down: so many of those that start go first
}
