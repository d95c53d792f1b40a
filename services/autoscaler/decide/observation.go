package decide

import "time"

// Observation is all that is known of a pool at one time. Each source says when it was heard, so that what is old or
// missing is not taken for what is.
type Observation struct {
	Routers  Routers           `json:"routers"`
	Engines  []Engine          `json:"engines"`
	Replicas map[Role]Replicas `json:"replicas"` // of roles that can be scaled
}

// Routers is what the routers report, summed over them. The counters count since any one time, and only grow, through
// restarts and deaths of routers.
type Routers struct {
	Heard     time.Time `json:"heard"`     // the newest report of the router that was silent for longest; zero is never
	Alive     int       `json:"alive"`     // routers that the fleet knows
	Reporting int       `json:"reporting"` // of these, with a report of the last seconds
	Arrivals  float64   `json:"arrivals"`  // requests
	Prompt    float64   `json:"prompt"`    // prompt tokens at dispatch
	Uncached  float64   `json:"uncached"`  // of these, to be computed
	Output    float64   `json:"output"`    // tokens
	Finished  float64   `json:"finished"`  // requests
	Queued    int       `json:"queued"`    // requests that wait at the routers now
	Tokens    int       `json:"tokens"`    // prompt tokens that these will compute, as foreseen
	Held      int       `json:"held"`      // of Queued, because the pool has no engine at all
	Ended     []Request `json:"ended"`     // that ended since the last observation: a sample, at most 512
}

// Request is one that has ended. Durations that were not measured are zero.
type Request struct {
	Prompt   int           `json:"prompt"`
	Uncached int           `json:"uncached"` // of Prompt, computed
	Output   int           `json:"output"`
	Waited   time.Duration `json:"waited"`  // at the router
	Prefill  time.Duration `json:"prefill"` // computing, without the wait for others in the engine
	TTFT     time.Duration `json:"ttft"`    // from arrival at the router
	ITL      time.Duration `json:"itl"`     // mean
	Failed   bool          `json:"failed"`
}

// Engine is one replica that the fleet knows: its first rank stands for all.
type Engine struct {
	ID       string `json:"id"`
	Role     Role   `json:"role"`
	Serving  bool   `json:"serving"`  // it takes requests, if it does not drain
	Draining bool   `json:"draining"` // routers do not choose it
	Operator bool   `json:"operator"` // an operator drains it: it is neither called back nor taken away

	// By the routers' reports.
	Inflight int     `json:"inflight"` // requests
	Backlog  int     `json:"backlog"`  // uncached prompt tokens not yet computed
	Decoding int     `json:"decoding"` // sequences in decode
	Context  int     `json:"context"`  // tokens of these in its cache
	Gaps     float64 `json:"gaps"`     // seconds between tokens, summed since any one time
	Tokens   float64 `json:"tokens"`   // these gaps

	Scrape Scrape `json:"scrape"` // its own word
}

// Scrape is what an engine says of itself on /metrics. Its counters start anew with its process.
type Scrape struct {
	At          time.Time `json:"at"` // zero is never
	Running     float64   `json:"running"`
	Waiting     float64   `json:"waiting"`
	KVUsage     float64   `json:"kvUsage"`     // 0 to 1
	KVTokens    int       `json:"kvTokens"`    // capacity; 0 is unknown
	Preemptions float64   `json:"preemptions"` // counter
	Generated   float64   `json:"generated"`   // counter of tokens
}

// Replicas is what runs of a role, as Kubernetes or whoever else starts engines says.
type Replicas struct {
	Read     time.Time       `json:"read"`    // when this was known to be so; zero is never
	Desired  int             `json:"desired"` // what is ordered now: of a scale subresource, spec.replicas
	Ready    int             `json:"ready"`   // those that drain among them
	Starting []Starting      `json:"starting"`
	Starts   []time.Duration `json:"starts"`   // created to ready, of those that became ready since the last observation
	Conflict string          `json:"conflict"` // who else scales the same object; "" is nobody
}

// Starting is a replica that is not ready yet.
type Starting struct {
	Created time.Time `json:"created"`
	Stuck   string    `json:"stuck"` // why it will not become ready by itself: Unschedulable, CrashLoopBackOff; "" is on its way
}
