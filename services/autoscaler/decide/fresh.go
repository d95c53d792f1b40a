package decide

import (
	"fmt"
	"time"
)

// How old a source may be, and what part of its speakers must be heard (autoscaler, section 7.6).
const (
	routersStale = 15 * time.Second // then nothing changes,
	routersGone  = 30 * time.Second // and then engines that queue by their own word get help
	enginesStale = 30 * time.Second // no fewer engines
	clusterStale = 30 * time.Second // nothing is written
	quorum       = .8
)

// view says what of an observation can be relied upon.
type view struct {
	ages    Ages
	routers bool   // their figures can be used
	most    bool   // most of the routers were heard
	engines bool   // most of those that serve have been heard themselves
	down    string // why nothing may be taken away; "" is nothing speaks against it
	idle    bool   // every router was heard: what they do not report is not there
	silent  time.Duration
}

// look judges the sources at a time.
func look(o *Observation, now time.Time) view {
	v := view{ages: Ages{Routers: age(o.Routers.Heard, now)}}
	v.silent = now.Sub(o.Routers.Heard)
	sane := o.Routers.sane()
	v.routers = v.ages.Routers >= 0 && v.silent <= routersStale && sane && o.Routers.Alive > 0
	v.most = v.routers && float64(o.Routers.Reporting) >= quorum*float64(o.Routers.Alive)
	v.idle = v.routers && o.Routers.Reporting >= o.Routers.Alive
	switch {
	case !sane:
		v.down = "the routers' figures are no numbers"
	case o.Routers.Alive <= 0 || v.ages.Routers < 0:
		v.down = "no router was heard"
	case !v.routers:
		v.down = fmt.Sprintf("a router is silent for %.0f s", v.ages.Routers)
	case !v.most:
		v.down = fmt.Sprintf("%d of %d routers report", o.Routers.Reporting, o.Routers.Alive)
	}
	serving, scraped := 0, 0
	for i := range o.Engines {
		e := &o.Engines[i]
		if !e.Serving {
			continue
		}
		serving++
		if a := age(e.Scrape.At, now); a < 0 || v.ages.Engines < 0 {
			v.ages.Engines = -1
		} else {
			v.ages.Engines = max(v.ages.Engines, a)
		}
		if e.Scrape.fresh(now) {
			scraped++
		}
	}
	v.engines = float64(scraped) >= quorum*float64(serving)
	if v.down == "" && !v.engines {
		v.down = fmt.Sprintf("%d of %d engines answer themselves", scraped, serving)
	}
	for _, role := range roles() {
		r, ok := o.Replicas[role]
		if !ok {
			continue
		}
		if a := age(r.Read, now); a < 0 || v.ages.Cluster < 0 {
			v.ages.Cluster = -1
		} else {
			v.ages.Cluster = max(v.ages.Cluster, a)
		}
	}
	if v.down == "" && !(v.ages.Cluster >= 0 && v.ages.Cluster <= clusterStale.Seconds()) {
		v.down = "what runs was not read lately"
	}
	return v
}

// age is in seconds; a time that has not come yet is now, and one that never was is -1.
func age(at, now time.Time) float64 {
	if at.IsZero() {
		return -1
	}
	return max(now.Sub(at).Seconds(), 0)
}

// fresh says whether what runs of a role was read lately.
func (r *Replicas) fresh(now time.Time) bool {
	return !r.Read.IsZero() && now.Sub(r.Read) <= clusterStale && r.Desired >= 0 && r.Ready >= 0
}

func (s *Scrape) fresh(now time.Time) bool {
	return !s.At.IsZero() && now.Sub(s.At) <= enginesStale && number(s.Running) && number(s.Waiting) && number(s.KVUsage)
}

// number says whether a figure can be counted with: what counts to more than 10^15 does not count.
func number(x float64) bool { return x >= 0 && x <= 1e15 }

func (r *Routers) sane() bool {
	return number(r.Arrivals) && number(r.Prompt) && number(r.Uncached) && number(r.Output) && number(r.Finished) &&
		r.Queued >= 0 && number(float64(r.Tokens)) && r.Held >= 0
}
