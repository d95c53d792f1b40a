package policy

import "math"

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

// State is what the router has learned. The zero value is ready to use. Its owner locks it; a copy shares the rates.
type State struct {
	Profile Profile // zero is DefaultProfile
	Output  float64 // mean output tokens of a request; 0 is not known yet

	transfer float64 // factor on the time that KV takes between engines; 0 is not known

	fits     map[string]*fit // by engine id
	prefills ascending       // their rates
	decodes  ascending
	median   Rate            // of these; 0 without any
	apart    map[string]Rate // of those far off it
}

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

// PrefillSeconds predicts the prefill of a prompt of which cached tokens are held, alone on an engine as the profile
// says: linear in the rest, and quadratic for attention over what is before each token.
func (s *State) PrefillSeconds(cached, prompt int) float64 {
	p := s.profile()
	return p.prefill(cached, prompt)
}

// StepSeconds predicts a decode step of an engine as the profile says, in which so many sequences take part.
func (s *State) StepSeconds(decoding, context int) float64 {
	p := s.profile()
	return p.step(decoding, context)
}

// StepsBefore predicts how many steps of c pass before the first token of a prompt with so much uncached.
func (s *State) StepsBefore(c *Candidate, uncached int) float64 {
	p := s.profile()
	return p.stepsBefore(c, uncached)
}

// prefill is PrefillSeconds: a choice reads the profile once and asks it of every candidate.
func (p *Profile) prefill(cached, prompt int) float64 {
	h, l := float64(cached), float64(prompt)
	return (p.Prefill*(l-h) + p.Quadratic*(l-h)*(h+(l-h)/2)/1e6) / 1000
}

// step is StepSeconds.
func (p *Profile) step(decoding, context int) float64 {
	return (p.Step + p.Sequence*float64(decoding) + p.Context*float64(context)/1000) / 1000
}

// stepsBefore is StepsBefore.
func (p *Profile) stepsBefore(c *Candidate, uncached int) float64 {
	steps := math.Ceil(float64(c.Uncached+uncached) / float64(p.Chunk))
	if c.Active > 0 {
		steps += 0.5 // a step under way has half of itself left
	}
	return steps
}
