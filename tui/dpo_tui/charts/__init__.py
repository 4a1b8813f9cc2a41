"""Line charts in Braille, from numpy columns to terminal cells."""
