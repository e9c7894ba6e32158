"""ALU behind the pipeline: agents audit a reply; the profile ``discreet`` tells nobody of whom."""
