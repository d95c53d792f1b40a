package prefix

// A Sum adds up what runs that only show make visible, as those of a snapshot do: it says before they are applied what
// an Index that holds nothing else will then say of the engine. The zero value is that of no runs.
type Sum struct {
	Count  int    // index keys in the any set
	Digest uint64 // of both sets, comparable with EngineInfo.Digest
}

// Add takes in a run. What runs hide, and keys shown twice, make the sum another than that of the state.
func (s *Sum) Add(r *Run) {
	keys := r.Keys
	if r.Split {
		keys = r.Shown
	}
	if r.GPU == Added {
		for _, key := range keys {
			s.Digest += digestGPU(key)
		}
	}
	if r.Any == Added {
		s.Count += len(keys)
		for _, key := range keys {
			s.Digest += digestAny(key)
		}
	}
}
