package decide

import "math"

const (
	slot     = 20. // seconds
	slots    = 128
	holdFor  = 900. // seconds that a need is held at least,
	holdStar = 1.6  // and so many start-up times
)

// peaks are the greatest values of slots of time, the latest 43 minutes. The time is that in which demand was seen:
// it stands still while nobody reports, so that a long silence forgets nothing.
type peaks struct {
	Slot int64          `json:"slot"` // the latest, counted from the beginning
	Max  [slots]float32 `json:"max"`
}

func (p *peaks) put(seen, v float64) {
	p.open(seen)
	at := &p.Max[p.Slot%slots]
	*at = max(*at, float32(v))
}

// set keeps the latest value of a slot.
func (p *peaks) set(seen, v float64) {
	p.open(seen)
	p.Max[p.Slot%slots] = float32(v)
}

func (p *peaks) open(seen float64) {
	for last := int64(seen / slot); p.Slot < last; {
		if last-p.Slot > slots {
			p.Slot = last - slots
		}
		p.Slot++
		p.Max[p.Slot%slots] = 0
	}
}

// over is the greatest of the last so many seconds, a slot's more at most.
func (p *peaks) over(seconds float64) float64 {
	n := min(int64(math.Ceil(seconds/slot)), slots-1, p.Slot)
	most := float32(0)
	for i := p.Slot - n; i <= p.Slot; i++ {
		most = max(most, p.Max[i%slots])
	}
	return float64(most)
}

// ago is what a slot so many seconds ago holds, and whether it is kept still.
func (p *peaks) ago(seconds float64) (float64, bool) {
	n := int64(seconds / slot)
	if n > p.Slot || n >= slots {
		return 0, false
	}
	return float64(p.Max[(p.Slot-n)%slots]), true
}

// holdSeconds is how long a need counts for a role that takes so long to start.
func holdSeconds(startup float64) float64 { return max(holdFor, holdStar*startup) }
