package top

import (
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

// Version is that of Picture's JSON: another number is another shape.
const Version = 1

// Picture is the fleet at one time: what a frame is drawn from, and what --json prints. What is not known is null, never
// zero.
type Picture struct {
	Version  int       `json:"v"`
	At       time.Time `json:"at"` // of all that follows; it stands still while NATS is away
	NATS     Link      `json:"nats"`
	Services []Service `json:"services"` // router, scorer, index, ingest, and whoever else announces itself
	Pools    []Pool    `json:"pools"`    // by model
}

// Link is the connection to NATS.
type Link struct {
	URL  string  `json:"url"`
	Up   bool    `json:"up"`
	Away float64 `json:"away_s"` // since when it is not up
	Why  string  `json:"why,omitempty"`
}

// Service counts the members of one service.
type Service struct {
	Name      string   `json:"name"`
	Alive     int      `json:"alive"`
	Ready     int      `json:"ready"`
	Uncovered int      `json:"uncovered_buckets,omitempty"` // index: those that no ready member answers for
	Instances []string `json:"instances"`
}

// Pool is one pool.
type Pool struct {
	ID        string     `json:"pool"`
	Model     string     `json:"model"`
	Routers   int        `json:"routers"`   // alive
	Reporting int        `json:"reporting"` // of these, heard lately
	Rates     *Rates     `json:"rates"`     // over the last ten seconds; null until each router was heard twice
	Gauges    *Gauges    `json:"gauges"`    // null while no router reports
	Engines   []Engine   `json:"engines"`   // by name
	Decision  *Decision  `json:"decision"`  // the newest; null is none of the last quarter of an hour
	Roles     []Role     `json:"roles"`     // of the engines and of the decision
	Decisions []Change   `json:"decisions"` // those that changed something, the newest first
	History   []Sampling `json:"history"`   // one a decision, the oldest first
}

// Rates are sums over the routers that report, per second.
type Rates struct {
	Arrivals float64  `json:"arrivals_s"`
	Prompt   float64  `json:"prompt_tokens_s"`
	Uncached float64  `json:"uncached_tokens_s"`
	Output   float64  `json:"output_tokens_s"`
	Shed     float64  `json:"shed_s"`    // requests that waited and were refused
	Hit      *float64 `json:"hit_ratio"` // 1 - uncached/prompt; null without prompts
}

// Gauges are requests now, at the routers that report.
type Gauges struct {
	Queued   int  `json:"queued"`
	Held     *int `json:"held"` // of Queued, because the pool has no engine; null where routers do not say
	Inflight int  `json:"inflight"`
}

// Engine is one engine.
type Engine struct {
	ID       string      `json:"id"`
	Name     string      `json:"name"`
	URL      string      `json:"url"`
	Role     fleet.Role  `json:"role"`
	State    fleet.State `json:"state"`
	Why      string      `json:"why,omitempty"`
	Draining bool        `json:"draining"`

	Inflight *int     `json:"inflight"`       // requests
	Backlog  *int     `json:"backlog_tokens"` // uncached prompt tokens that are not computed yet
	Decoding *int     `json:"decoding"`       // sequences
	KV       *float64 `json:"kv_usage"`       // 0 to 1, of the tokens that the routers have there
	Load     *float64 `json:"load"`           // 1 is all that the objectives allow by the learned model
}

// Decision is the newest one, without its roles.
type Decision struct {
	At    time.Time   `json:"at"`
	Age   float64     `json:"age_s"`
	Mode  decide.Mode `json:"mode"`
	Blind string      `json:"blind,omitempty"`
	Ages  decide.Ages `json:"ages"`
}

// Role is one role of a pool.
type Role struct {
	Role     decide.Role          `json:"role"`
	Serving  int                  `json:"serving"`  // replicas that the fleet knows and that do not drain
	Draining int                  `json:"draining"` // replicas that do
	Starting *int                 `json:"starting"` // replicas that are ordered and that the fleet does not know yet; null without a decision
	Decision *decide.RoleDecision `json:"decision"` // in full
}

// Change is a decision that differs from the one before it.
type Change struct {
	At      time.Time   `json:"at"`
	Role    decide.Role `json:"role"` // empty: the whole pool
	From    int         `json:"from"`
	To      int         `json:"to"`
	Rule    string      `json:"rule"`
	Blocked []string    `json:"blocked,omitempty"`
	Blind   string      `json:"blind,omitempty"`
	Mode    decide.Mode `json:"mode"`
}

// Sampling is what one decision knew, by role.
type Sampling struct {
	At    time.Time               `json:"at"`
	Roles map[decide.Role]Sampled `json:"roles"`
}

// Sampled is one role of a Sampling.
type Sampled struct {
	Now    int     `json:"now"`
	Target int     `json:"target"`
	Demand float64 `json:"demand"` // busy replicas
}

// Find returns the pool of that id or model, or nil.
func (p *Picture) Find(name string) *Pool {
	for i := range p.Pools {
		if p.Pools[i].ID == name || p.Pools[i].Model == name {
			return &p.Pools[i]
		}
	}
	return nil
}
