"""Files and tables: COPY, CREATE TABLE … AS, and what EXPECT checks of them."""
