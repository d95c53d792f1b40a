package sim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
)

// Setup is all that the result of a run depends on beside its policy, its seed and the code.
type Setup struct {
	Arrivals string  `json:"arrivals"`
	Scale    float64 `json:"scale"`
	Fleet    Options `json:"fleet"` // with its defaults; times are nanoseconds
}

// Setup describes a scene's runs under an objective.
func (s *Scene) Setup(slo SLO) Setup {
	o := s.Fleet
	o.Profile, o.SLO, o.Policy, o.Seed = o.profile(), slo, "", 0
	o, _ = o.withDefaults() // what is out of range is told by Run
	return Setup{Arrivals: s.Arrivals, Scale: s.Scale, Fleet: o}
}

// Key is a short name: equal keys, equal setups, but for one pair in 2^64.
func (s Setup) Key() string {
	text, _ := json.Marshal(s) // plain values throughout, as a test holds
	h := fnv.New64a()
	h.Write(text)
	return fmt.Sprintf("%016x", h.Sum64())
}
