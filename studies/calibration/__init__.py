"""What do ρ, α, β and the mean width have to be? Fitted to trained designs and to the published ones, and judged on others."""
