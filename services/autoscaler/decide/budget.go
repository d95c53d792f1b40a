package decide

// share grants what the budget of GPUs allows (autoscaler, section 7.6).
func (c *core) share(all []choice) {
}
