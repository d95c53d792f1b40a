package policy

// Profile is what a step of an engine costs, in milliseconds.
type Profile struct {
	Step      float64 // a: a decode step of an empty batch
	Prefill   float64 // b: for each prompt token
	Sequence  float64 // c: for each decoding sequence in a step
	Context   float64 // d: for each 1000 context tokens of decoding sequences in a step
	Quadratic float64 // q: for each million pairs of prompt token and token before it
	Chunk     int     // prompt tokens that one step takes
}

// DefaultProfile is Qwen3-32B on two H100s, tensor parallel. A factor of two off does little harm.
func DefaultProfile() Profile {
	return Profile{Step: 13.99, Prefill: 0.04705, Sequence: 0.0764, Context: 0.0450, Quadratic: 1.70, Chunk: 8192}
}

const (
	startOutput = 300      // output tokens of a request before any was seen
	outputShare = 1. / 256 // weight of one request in the mean output
)

// State is what the router has learned. The zero value is ready to use. It is a plain value; its owner locks it.
type State struct {
	Profile Profile // zero is DefaultProfile
	Output  float64 // mean output tokens of a request; 0 is not known yet
	// Rates are factors by which engines differ from the profile, by engine id; an absent one is 1.
	Rates map[string]Rate
}

// Rate is how much slower than the profile an engine is: 1 is as the profile says, 0 not known.
type Rate struct{ Prefill, Decode float64 }

// Finished tells the state of a request that ended with so many output tokens.
func (s *State) Finished(output int) {
	s.Output = s.meanOutput() + (float64(output)-s.meanOutput())*outputShare
}

func (s *State) meanOutput() float64 {
	if s.Output == 0 {
		return startOutput
	}
	return s.Output
}

func (s *State) profile() Profile {
	if s.Profile == (Profile{}) {
		return DefaultProfile()
	}
	return s.Profile
}

func (s *State) rate(engine string) Rate {
	r := s.Rates[engine]
	if r.Prefill == 0 {
		r.Prefill = 1
	}
	if r.Decode == 0 {
		r.Decode = 1
	}
	return r
}

// PrefillSeconds predicts the prefill of a prompt of which cached tokens are held, alone on an engine: linear in the
// rest, and quadratic for attention over what is before each token.
func (s *State) PrefillSeconds(cached, prompt int) float64 {
	p := s.profile()
	h, l := float64(cached), float64(prompt)
	return (p.Prefill*(l-h) + p.Quadratic*(l-h)*(h+(l-h)/2)/1e6) / 1000
}
